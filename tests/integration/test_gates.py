"""Every gate of a build, broken on purpose: the build is refused, nothing is stored, `latest` stays where it is."""

from __future__ import annotations

import dataclasses
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest

from litelambda.commands import build as build_module
from litelambda.commands.build import build
from litelambda.common.errors import GateError, LitelambdaError, TrainError
from litelambda.common.interrupts import interrupts_noted
from litelambda.common.progress import Reporter
from litelambda.conversion.quantize import Quantized, quantize
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import copy_model
from litelambda.recipe.load import load_recipe
from litelambda.recipe.sections import Quantize
from litelambda.store import artifact_store as store_module
from litelambda.store.artifact_store import Store
from litelambda.training.train import Trained
from litelambda_serving.errors import ServingError
from litelambda_serving.objects.files import FileObjects
from support.moto_server import MotoServer

Break = Callable[[Any], Any]


class Pieces:
    """A finished build of `tiny_recipe` whose stages can be run again, broken or not, without training and converting.

    Attributes:
        trained: what the train stage gave.
        quantized: what the quantize stage gave.
        floating: the same model, not quantized.
        store: where version 1 lies, which `latest` points at.
    """

    trained: Trained
    quantized: Quantized
    floating: Quantized

    def __init__(self, recipe: Path, store: Path) -> None:
        self.recipe, self.store = recipe, store

    def build(
        self,
        patches: pytest.MonkeyPatch,
        *overrides: str,
        train: Break = lambda trained: trained,
        quantize: Break = lambda quantized: quantized,
        url: str = "",
        **options: bool,
    ) -> build_module.BuildResult:
        """Build again into the same store, with what the two stages give changed."""
        patches.setattr(build_module, "train", lambda *_: train(self.trained))
        patches.setattr(build_module, "quantize", lambda *_: quantize(self.quantized))
        return build(load_recipe(self.recipe, overrides), url or self.store.as_uri(), Reporter(), **options)

    def files(self) -> dict[str, bytes]:
        """All that the store holds."""
        found = (file for file in self.store.rglob("*") if file.is_file())
        return {str(file.relative_to(self.store)): file.read_bytes() for file in found}


@pytest.fixture(scope="module")
def first_build(module_tiny_recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Pieces:
    """Version 1, and what its stages made; for `pieces` to copy."""
    pieces = Pieces(module_tiny_recipe, tmp_path_factory.mktemp("gates"))
    with pytest.MonkeyPatch.context() as patches:

        def kept(name: str, stage: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                setattr(pieces, name, stage(*arguments))
                return getattr(pieces, name)

            return run

        patches.setattr(build_module, "train", kept("trained", build_module.train))
        patches.setattr(build_module, "quantize", kept("quantized", build_module.quantize))
        build(load_recipe(module_tiny_recipe, ["train.epochs=8"]), pieces.store.as_uri(), Reporter())
    model = pieces.trained.model
    pieces.floating = quantize(model, {model.inputs[0].name: np.zeros((1, 4), np.float32)}, Quantize(scheme="float32"))
    return pieces


@pytest.fixture
def pieces(first_build: Pieces, tmp_path: Path) -> Pieces:
    """Version 1 in a store of the test's own."""
    mine = Pieces(first_build.recipe, tmp_path)
    mine.trained, mine.quantized = first_build.trained, first_build.quantized
    mine.floating = first_build.floating
    for name, content in first_build.files().items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return mine


def with_weights(change: Callable[[list[Any]], Any]) -> Break:
    """Change the weights of the trained model: a list of arrays, in place."""

    def broken(trained: Trained) -> Trained:
        model = copy_model(trained.model)
        weights = [array.copy() for array in model.get_weights()]
        change(weights)
        model.set_weights(weights)
        return Trained(model, trained.history)

    return broken


def made_of(change: Callable[[list[Any]], Any], *, of_changed: bool = False) -> Callable[[Pieces], Break]:
    """A float artifact whose weights are changed in its bytes, as a converter that breaks them would.

    Args:
        change: of the weights.
        of_changed: the model is changed too, and the artifact is what a converter makes of it.
    """

    def of(pieces: Pieces) -> Break:
        artifact = pieces.floating.artifact
        before = pieces.trained.model.get_weights()
        after = [array.copy() for array in before]
        change(after)
        for old, new in zip(before, after, strict=True):
            assert artifact.count(old.T.tobytes()) == 1  # kernels lie transposed
            artifact = artifact.replace(old.T.tobytes(), new.T.tobytes())
        source = artifact if of_changed else pieces.floating.in_float
        return lambda _: dataclasses.replace(pieces.floating, artifact=artifact, in_float=source)

    return of


def zero(weights: list[Any]) -> None:
    """The last kernel gives nothing."""
    weights[-2][:] = 0


def swap(weights: list[Any]) -> None:
    """Two outputs change places."""
    for array in weights[-2:]:
        array[..., [0, 1]] = array[..., [1, 0]]


def flatten(weights: list[Any]) -> None:
    """The same classes with far less certainty."""
    weights[-2] *= 0.02
    weights[-1] *= 0.02


def overflow(weights: list[Any]) -> None:
    """Weights that are numbers, and products that are none."""
    for array in weights:
        array[:] = np.where(array < 0, -3e38, 3e38)


def refused(
    pieces: Pieces, patches: pytest.MonkeyPatch, error: type[Exception], message: str, *overrides: str, **broken: Any
) -> None:
    """The build fails with this message, and the store is what it was, byte by byte."""
    before = pieces.files()
    with pytest.raises(error, match=message):
        pieces.build(patches, *overrides, **broken)
    assert pieces.files() == before
    assert Store(pieces.store.as_uri()).read_aliases("tiny") == {"latest": 1}


def test_what_is_not_broken_passes(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pieces become version 2, and the result says how version 1 does on the same rows."""
    result = pieces.build(monkeypatch)
    assert Store(pieces.store.as_uri()).read_aliases("tiny") == {"latest": 2}
    (served,) = result.to_json()["served"]
    assert served == {"version": 1, "aliases": ["latest"], "metrics": result.metrics["quantized"], "reason": ""}
    assert f"version 1 (latest): accuracy {served['metrics']['accuracy']:.4g}" in result.describe()
    assert 0 < result.metrics["relative_difference"] < 0.25


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (overflow, TrainError, "answers 120 of 120 test rows with NaN or infinity"),
        (zero, GateError, r"no better than to answer every row with the most frequent class: .*\. Never predicted: '"),
    ],
)
def test_a_trained_model_that_is_worth_nothing_is_refused(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, change: Any, error: type[LitelambdaError], message: str
) -> None:
    """Before anything is made of it: answers that are no numbers, and one class for every row."""
    refused(pieces, monkeypatch, error, message, train=with_weights(change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (swap, r"accuracy fell by .* \(float\) to .* \(quantized\)"),
        (zero, "accuracy fell by"),
        (flatten, r"a difference of 0\.\d+ of the range .* gate\.max_difference allows 0\.25"),
    ],
)
def test_an_artifact_that_is_another_model_is_refused(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, change: Any, message: str
) -> None:
    """Outputs that changed places, zeros, and the right classes with other probabilities."""
    refused(pieces, monkeypatch, GateError, message, quantize=made_of(change)(pieces))


def test_an_artifact_of_nan_is_refused(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN has no class and no error: it is counted before anything is compared."""

    def nan(weights: list[Any]) -> None:
        weights[-1][:] = np.nan

    message = "the artifact answers 120 of 120 test rows with NaN or infinity"
    refused(pieces, monkeypatch, GateError, message, quantize=made_of(nan)(pieces))


def test_an_artifact_no_better_than_one_class_is_refused(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the recipe lets quantization cost."""
    generous = ("gate.max_accuracy_drop=1", "gate.max_difference=9")
    message = "the artifact is no better than to answer every row with the most frequent class"
    refused(pieces, monkeypatch, GateError, message, *generous, quantize=made_of(zero)(pieces))


def worse(weights: list[Any]) -> None:
    """What the last layer has learnt of one class is gone."""
    weights[-2][:, 0] = 0
    weights[-1][0] = -9


def test_a_build_that_is_worse_than_what_is_served_is_refused(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both figures are in the message, and --accept-worse publishes it all the same."""
    broken: dict[str, Break] = {"train": with_weights(worse), "quantize": made_of(worse, of_changed=True)(pieces)}
    message = r"from 0\.\d+ \(version 1, which latest now serves\) to 0\.\d+ \(this build\).*--accept-worse publishes"
    refused(pieces, monkeypatch, GateError, message, **broken)
    result = pieces.build(monkeypatch, **broken, accept_worse=True)
    assert (result.published.version, result.served) == (2, [])
    assert Store(pieces.store.as_uri()).read_aliases("tiny") == {"latest": 2}


def test_a_build_that_moves_other_aliases_is_not_compared(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """What `latest` serves is not replaced: an alias without a version has nothing to lose."""
    broken: dict[str, Break] = {"train": with_weights(worse), "quantize": made_of(worse, of_changed=True)(pieces)}
    result = pieces.build(monkeypatch, 'publish.aliases=["trial"]', **broken)
    assert result.served == []
    assert Store(pieces.store.as_uri()).read_aliases("tiny") == {"latest": 1, "trial": 2}


def test_raw_values_reach_the_served_version_as_it_takes_them(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that scales its rows otherwise gives version 1 the rows of its own scale: the same figures."""
    scaled = "data.normalize={scale=0.5, offset=3.0}"

    def as_trained(weights: list[Any]) -> None:
        weights[1] -= 6 / 255 * weights[0].sum(axis=0)
        weights[0] *= 2 / 255

    result = pieces.build(
        monkeypatch, scaled, train=with_weights(as_trained), quantize=made_of(as_trained, of_changed=True)(pieces)
    )
    before = pieces.build(monkeypatch, 'publish.aliases=["latest"]', accept_worse=True).metrics["quantized"]
    assert result.served[0].metrics == before


def test_a_version_of_other_classes_is_not_compared(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit is said, and does not hold the build up."""
    result = pieces.build(monkeypatch, "data.labels=['red', 'green', 'blue']")
    assert result.served[0].metrics is None
    assert (
        "not compared with version 1 (latest): its labels are 0, 1, 2, those of the data are red" in result.describe()
    )


@pytest.mark.parametrize("name", ["manifest.json", "model.tflite", "aliases.json"])
def test_a_served_version_that_cannot_be_read_is_an_error(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A store that fails is no reason to skip the comparison."""
    damaged = next(pieces.store.rglob(name))
    damaged.write_bytes(b"{" + damaged.read_bytes()[1:-1])
    before = pieces.files()
    with pytest.raises((ServingError, LitelambdaError)):
        pieces.build(monkeypatch)
    assert pieces.files() == before


def test_what_a_bucket_serves_is_compared_with_as_well(pieces: Pieces, monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 keeps the same promises: a worse build is refused, and so is one where what is served cannot be read."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    broken: dict[str, Any] = {
        "train": with_weights(worse),
        "quantize": made_of(worse, of_changed=True)(pieces),
        "url": "s3://models/a",
    }
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        for name, content in pieces.files().items():
            if "/." not in name:
                client.put_object(Bucket="models", Key=f"a/{name}", Body=content)
        before = client.list_objects_v2(Bucket="models")["Contents"]
        with pytest.raises(GateError, match="version 1, which latest now serves"):
            pieces.build(monkeypatch, **broken)
        client.delete_object(Bucket="models", Key="a/tiny/1/model.tflite")
        with pytest.raises(ServingError, match=r"model\.tflite"):
            pieces.build(monkeypatch, **broken)
        after = client.list_objects_v2(Bucket="models")["Contents"]
        assert after == [each for each in before if each["Key"] != "a/tiny/1/model.tflite"]
        client.close()


def test_weights_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    """Weights of 1e5 become 65504 in float16: every answer is a third off, though the error against the labels fell."""
    keras = load_keras()
    rows = np.random.default_rng(0).random((120, 4)) * 1e-4
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,), name="features"), keras.layers.Dense(1, name="value")])
    model.set_weights([np.full((4, 1), 1e5), np.zeros(1)])
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "set.npz", x=rows, y=rows.sum(axis=1) * 65504)
    (tmp_path / "recipe.toml").write_text(
        '[model]\npath = "model.keras"\n[data]\nformat = "npz"\npath = "set.npz"\ntask = "regression"\n'
        '[train]\nloss = "mse"\nepochs = 0\n[quantize]\nscheme = "float16"\n'
        '[gate]\nallow_trivial = true\n[publish]\nname = "half"\n'
    )
    with pytest.raises(GateError, match=r"gate\.max_difference allows 0\.25"):
        build(load_recipe(tmp_path / "recipe.toml"), (tmp_path / "store").as_uri(), Reporter())
    assert not (tmp_path / "store").exists()


class Dropping:
    """Is finalized when nobody wants it any more; Ctrl-C comes just then, and Python drops what it raises."""

    def __del__(self) -> None:
        signal.raise_signal(signal.SIGINT)


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The exceptions that Python dropped meanwhile."""
    found: list[Any] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: found.append(unraisable.exc_type))
    return found


@pytest.mark.parametrize("where", ["train", "quantize", "verify", "put"])
def test_a_ctrl_c_that_python_drops_never_ends_in_a_publish(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, dropped: list[Any], where: str
) -> None:
    """Raised in a finalizer, KeyboardInterrupt is dropped, and the stage goes on to its end: the build does not."""

    def then_dropped(stage: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            done = stage(*arguments, **options)
            Dropping()
            return done

        return run

    broken: dict[str, Break] = {}
    if where in ("train", "quantize"):
        broken[where] = then_dropped(lambda made: made)
    elif where == "verify":
        monkeypatch.setattr(build_module, "verify", then_dropped(build_module.verify))
    else:
        monkeypatch.setattr(FileObjects, "put", then_dropped(FileObjects.put))
    with pytest.raises(KeyboardInterrupt), interrupts_noted():
        pieces.build(monkeypatch, **broken)
    assert set(dropped) == {KeyboardInterrupt}
    store = Store(pieces.store.as_uri())
    assert (store.list_versions("tiny"), store.read_aliases("tiny")) == ([1], {"latest": 1})


def test_a_ctrl_c_that_comes_too_late_leaves_a_whole_version(
    pieces: Pieces, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Once a version can be read its aliases move too, and the user is told; a second Ctrl-C stops at once."""
    advance, times = store_module.Store.advance_alias, [1, 2]

    def interrupted(*arguments: Any) -> None:
        for _ in range(times[0]):
            signal.raise_signal(signal.SIGINT)
        advance(*arguments)

    monkeypatch.setattr(store_module.Store, "advance_alias", interrupted)
    with interrupts_noted():
        assert pieces.build(monkeypatch).published.version == 2
    assert "is being published already; again to stop at once" in capfd.readouterr().err
    assert Store(pieces.store.as_uri()).read_aliases("tiny") == {"latest": 2}
    times.pop(0)
    with pytest.raises(KeyboardInterrupt), interrupts_noted():
        pieces.build(monkeypatch)
    assert Store(pieces.store.as_uri()).read_aliases("tiny") == {"latest": 2}


def test_what_ignores_ctrl_c_goes_on_ignoring_it() -> None:
    """A shell starts what runs in its background with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interrupts_noted():
            signal.raise_signal(signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
