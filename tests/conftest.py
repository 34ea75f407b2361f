"""Real tiny artifacts, made once per session by the project's own stages."""

from __future__ import annotations

import gc
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest

from litelambda.artifact import latency
from litelambda.commands import explain
from litelambda.commands.build import build
from litelambda.common.progress import Reporter
from litelambda.conversion.quantize import quantize
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from litelambda.recipe.sections import Quantize
from litelambda_serving import objects
from support import schedule
from support.built import BuiltArtifact
from support.process_state import ProcessState

# A deadline for an example is a timed test, which fails on a busy machine. The examples are the same in every run, so
# that a change fails only for what it does; `make fuzz` draws others.
hypothesis.settings.register_profile("same", deadline=None, derandomize=True)
hypothesis.settings.register_profile("others", deadline=None, print_blob=True)
hypothesis.settings.load_profile("same")


def pytest_configure(config: pytest.Config) -> None:
    """Let Keras be: TensorFlow's variables have not caught up with NumPy 2.4's `copy` keyword.

    And let Ctrl-C reach the commands under test where this process was started to ignore it, as by `&` in a script. The
    garbage collector rests while tests are collected: there is no garbage, and a million objects to look at.
    """
    gc.disable()
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line(
        "filterwarnings", "ignore:__array__ implementation doesn't accept a copy:DeprecationWarning"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with what takes longest."""
    schedule.longest_first(items)


def pytest_collection_finish() -> None:
    """Collect garbage again, but pass over what is there by now: Keras has all objects visited before each training."""
    gc.freeze()
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Where several workers share the tests, give each worker whole files; see `support.schedule`."""
    return schedule.make_scheduler(config, log)


@pytest.fixture(autouse=True)
def _as_found() -> Iterator[None]:
    """Fail a test that leaves changed what the tests after it share with it: first to begin here, last to end."""
    before = ProcessState.read()
    yield
    changes = before.changes()
    assert not changes, f"this test leaves changed: {', '.join(changes)}"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Time each artifact in one process, and export no gradients that a test does not ask for."""
    monkeypatch.setattr(latency, "PROCESSES", 1)
    monkeypatch.setattr(explain, "MOST_BYTES", 0)


@pytest.fixture(autouse=True)
def _own_s3_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test's client is its own: a process keeps one, which would ask the server of an earlier test."""
    monkeypatch.setattr(objects, "_s3", None)


def representative_rows(model: Any, num_rows: int = 32) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Seeded random rows in [0, 1) for each input of a model."""
    noise = np.random.default_rng(0)
    return {tensor.name: noise.random((num_rows, *tensor.shape[1:]), dtype=np.float32) for tensor in model.inputs}


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    """A Keras classifier: "features" (4) -> Dense 8 relu -> Dense 3 softmax, "probabilities"."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,), name="features"),
            keras.layers.Dense(8, "relu", name="hidden"),
            keras.layers.Dense(3, "softmax", name="probabilities"),
        ],
        name="tiny",
    )


@pytest.fixture(scope="session")
def two_way_model() -> Any:
    """A Keras model with the inputs "left" (4) and "right" (2, 3) and the outputs "class" (2) and "score" (1)."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((2, 3), name="right")
    joined = keras.layers.Concatenate(name="joined")([left, keras.layers.Flatten(name="flat")(right)])
    hidden = keras.layers.Dense(5, "relu", name="hidden")(joined)
    outputs = [keras.layers.Dense(2, "softmax", name="class")(hidden), keras.layers.Dense(1, name="score")(hidden)]
    return keras.Model([left, right], outputs, name="two_way")


@pytest.fixture(scope="session")
def tiny_tflite(tiny_model: Any) -> bytes:
    """`tiny_model` in int8 with float32 edges."""
    return quantize(tiny_model, representative_rows(tiny_model), Quantize()).artifact


@pytest.fixture(scope="session")
def tiny_uint8_tflite(tiny_model: Any) -> bytes:
    """`tiny_model` in int8 with uint8 edges."""
    return quantize(tiny_model, representative_rows(tiny_model), Quantize(io="uint8")).artifact


@pytest.fixture(scope="session")
def two_way_tflite(two_way_model: Any) -> bytes:
    """`two_way_model` in int8 with float32 edges."""
    return quantize(two_way_model, representative_rows(two_way_model), Quantize()).artifact


@pytest.fixture(scope="module")
def served_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder, and the address of what serves the models that are published into it."""
    from support.corpus import serving

    store = tmp_path_factory.mktemp("store")
    with serving(store) as address:
        yield store, address


TINY_RECIPE = """
[model]
builder = "mlp"
hidden = [8]
input_name = "features"
output_name = "probabilities"
[data]
format = "npz"
path = "tiny.npz"
normalize = "0-1"
[train]
loss = "sparse_categorical_crossentropy"
optimizer = { name = "adam", learning_rate = 0.01 }
epochs = 6
batch_size = 32
[quantize]
representative_samples = 50
[gate]
max_accuracy_drop = 0.05
[publish]
name = "tiny"
report_examples = 0  # most tests read no report: nothing is drawn or explained
"""


def make_tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe beside its data: 600 rows of four uint8 values, three classes told by which of three is largest."""
    folder = tmp_path_factory.mktemp("tiny")
    x = np.random.default_rng(0).integers(0, 256, (600, 4), dtype=np.uint8)
    np.savez(folder / "tiny.npz", x=x, y=x[:, :3].argmax(axis=1))
    (folder / "recipe.toml").write_text(TINY_RECIPE)
    return folder / "recipe.toml"


@pytest.fixture
def tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny recipe in a folder of this test's own, where it may write."""
    return make_tiny_recipe(tmp_path_factory)


@pytest.fixture(scope="module")
def module_tiny_recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny recipe in a folder that the tests of a module share."""
    return make_tiny_recipe(tmp_path_factory)


@pytest.fixture(scope="session")
def built_artifact(tmp_path_factory: pytest.TempPathFactory) -> BuiltArtifact:
    """The whole pipeline run once on `make_tiny_recipe`. Read it; do not write to its store."""
    root = tmp_path_factory.mktemp("store")
    recipe = load_recipe(
        make_tiny_recipe(tmp_path_factory), ['publish.aliases=["latest", "stable"]', "publish.report_examples=12"]
    )
    result = build(recipe, root.as_uri(), Reporter())
    return BuiltArtifact(root.as_uri(), "tiny", 1, root / "tiny" / "1", result)
