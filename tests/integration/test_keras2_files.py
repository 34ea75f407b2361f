"""Files that Keras 2 wrote answer as Keras 2 answered: tests/golden/make_keras2.py and make_tf1.py asked it."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from litelambda.artifact.reference import Reference
from litelambda.cli.main import main
from litelambda.keras_tools import keras2_files
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.keras2_files import version_of_writer
from litelambda.keras_tools.model_files import load_model_file
from litelambda.keras_tools.output_names import output_names
from support.golden_store import GOLDEN
from support.handler_client import load_module, send

ARCHIVE, OLD = (zipfile.ZipFile(GOLDEN / name) for name in ("keras2.zip", "tf1.zip"))
NAMES = sorted([*ARCHIVE.namelist(), *OLD.namelist()])
FILES = [name for name in NAMES if not name.endswith(".npz") and not name.startswith("code")]
TOLERANCE = {"half": 2e-3}
"""Of an output's range; 16-bit floats have steps of a thousandth."""


def unpack(name: str, folder: Path) -> tuple[Path, list[NDArray[Any]], list[NDArray[Any]]]:
    """A file, what it was asked, and what it answered."""
    stem = name.partition(".")[0]
    archive = OLD if name.startswith("old_") else ARCHIVE
    archive.extract(name, folder)
    with archive.open(f"{stem}.npz") as file, np.load(file) as arrays:
        asked = [arrays[key] for key in sorted(arrays, key=_number) if key.startswith("input")]
        answers = [arrays[key] for key in sorted(arrays, key=_number) if key.startswith("answer")]
    return folder / name, asked, answers


def _number(key: str) -> int:
    return int(key.rpartition("_")[2])


def largest_difference(found: list[NDArray[Any]], right: list[NDArray[Any]]) -> float:
    """As a share of an output's range, or of 1 where that is smaller."""
    return max(
        float(np.abs(one.astype(float) - other.astype(float)).max() / max(np.ptp(other), 1.0))
        for one, other in zip(found, right, strict=True)
    )


def predict(path: Path, asked: list[NDArray[Any]]) -> list[NDArray[Any]]:
    """What the file's model answers here."""
    answers = load_model_file(path).predict(asked if len(asked) > 1 else asked[0], verbose=0)
    if isinstance(answers, dict):
        return [answers[key] for key in sorted(answers)]
    return answers if isinstance(answers, list) else [answers]


@pytest.mark.parametrize("name", FILES)
def test_it_answers_as_keras_2_did(name: str, tmp_path: Path) -> None:
    """Each layer with what Keras 3 has dropped or changed, in both formats."""
    path, asked, answers = unpack(name, tmp_path)
    assert all(np.ptp(each) > 0.01 for each in answers)
    assert version_of_writer(path) == ("2.2.4-tf" if name.startswith("old_") else "2.15.0")
    assert largest_difference(predict(path, asked), answers) < TOLERANCE.get(path.stem, 1e-5)


def _says_nothing_but_dtype(name: str, key: str, value: Any, known: Any = keras2_files._says_nothing) -> bool:
    return key != "dtype" and bool(known(name, key, value))


@pytest.mark.parametrize(
    ("name", "guard", "without"),
    [
        ("sequences.h5", "_HARD_SIGMOID", "hard_sigmoid"),
        ("norms.h5", "_says_nothing", _says_nothing_but_dtype),
    ],
)
def test_keras_3_alone_would_answer_otherwise(
    name: str, guard: str, without: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `hard_sigmoid` has another slope, and its Discretization rounds, which nothing else would notice."""
    path, asked, answers = unpack(name, tmp_path)
    monkeypatch.setattr(keras2_files, guard, without)
    assert largest_difference(predict(path, asked), answers) > 1e-3


def test_another_order_of_layers_is_refused(tmp_path: Path) -> None:
    """Weights are counted: of layers that are alike, each would have the other's."""

    def edit(config: str) -> str:
        model = json.loads(config)
        layers = model["config"]["layers"]
        first, second = (index for index, each in enumerate(layers) if each["name"] in ("for_first", "for_second"))
        layers[first], layers[second] = layers[second], layers[first]
        return json.dumps(model)

    with pytest.raises(ValueError, match=r"come in the order \[.*'for_first', 'for_second'\], and its weights in"):
        load_model_file(edited("nested.keras", tmp_path, edit))


@pytest.mark.parametrize(
    "name", ["pictures.h5", "sequences.keras", "functions.h5", "translation.keras", "transfer.keras", "old_graph.h5"]
)
def test_what_is_published_answers_as_keras_2_did(name: str, tmp_path: Path) -> None:
    """Imported, its artifact gives what Keras 2 predicted, and the file is published as it came."""
    path, asked, answers = unpack(name, tmp_path)
    assert main(["import", str(path), "--name", "old", "--store", (tmp_path / "store").as_uri()]) == 0
    version = tmp_path / "store/old/1"
    assert (version / f"model{path.suffix}").read_bytes() == path.read_bytes()
    reference = Reference((version / "model.tflite").read_bytes())
    signature = json.loads((version / "manifest.json").read_text())["signatures"]["predict"]
    inputs = {each["name"]: each["dtype"] for each in signature["inputs"]}
    rows = {name: _of_name(name, path, asked)[:, None].astype(dtype) for name, dtype in inputs.items()}
    found = reference.run_each(rows)
    outputs = [found[name] for name in output_names(load_model_file(path))]
    by_size = [each.reshape(len(each), -1) for each in outputs]
    assert largest_difference(by_size, [each.reshape(len(each), -1) for each in answers]) < 1e-4


def _of_name(name: str, path: Path, asked: list[NDArray[Any]]) -> NDArray[Any]:
    return asked[[each.name for each in load_model_file(path).inputs].index(name)]


def test_it_is_served(tmp_path: Path) -> None:
    """A file of TensorFlow 2.15 to an answer over the protocol that it was served by then."""
    path, asked, answers = unpack("transfer.h5", tmp_path)
    assert main(["import", str(path), "--name", "old", "--store", (tmp_path / "store").as_uri()]) == 0
    handler = load_module(tmp_path / "store", "old").handler
    answer = send(handler, "POST", "/v1/models/old:predict", {"instances": asked[0].tolist()})
    assert largest_difference([np.array(answer.json()["predictions"])], answers) < 1e-4


def edited(name: str, folder: Path, edit: Callable[[str], str]) -> Path:
    """A .keras file with another config."""
    path, copy = unpack(name, folder)[0], folder / "edited.keras"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(copy, "w") as target:
        for entry in source.namelist():
            content = source.read(entry)
            target.writestr(entry, edit(content.decode()) if entry == "config.json" else content)
    return copy


FUNCTION = '"function": "math.truediv"'
TIME = '"time_major": false'


@pytest.mark.parametrize(
    ("name", "old", "new", "message"),
    [
        *(
            ("transfer.keras", FUNCTION, f'"function": "{function}"', f"calls tf.{function}, which is not among")
            for function in (
                "io.read_file", "io.write_file", "py_function", "raw_ops.ReadFile", "math.__init__",
                "compat.v1.py_func", "nn.experimental.x", "random.normal", "math.", "",
            )
        ),
        ("sequences.keras", TIME, TIME.replace("false", "true"), "'time_major': True"),
        ("sequences.keras", '"class_name": "SimpleRNN"', '"class_name": "Mine"', "'keras.layers.Mine'"),
    ],
)  # fmt: skip
def test_what_cannot_be_imported_is_named(
    name: str, old: str, new: str, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A function that does more than to compute, a keyword that means something else, a layer that is code."""

    def edit(config: str) -> str:
        assert old in config
        return config.replace(old, new, 1)

    path = edited(name, tmp_path, edit)
    assert main(["import", str(path), "--name", "old", "--store", (tmp_path / "store").as_uri()]) == 1
    said = capsys.readouterr().err
    assert message in said
    assert "It was written by Keras 2.15.0: load it there, write it with model.export(FOLDER)" in said
    assert not (tmp_path / "store/old").exists()


@pytest.mark.parametrize("name", ["code.h5", "code.keras"])
def test_code_is_not_run(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A Lambda layer's is never unpacked, in either format's form."""
    path = unpack(name, tmp_path)[0]
    assert main(["import", str(path), "--name", "old", "--store", (tmp_path / "store").as_uri()]) == 1
    said = capsys.readouterr().err
    assert re.search("Keras cannot load .* ValueError: .*lambda", said)
    assert "It was written by Keras 2.15.0" in said


def test_a_sequential_model_without_an_input_layer(tmp_path: Path) -> None:
    """Up to TensorFlow 2.1, the first layer of its own had the shape."""

    def edit(config: str) -> str:
        model = json.loads(config)
        given = model["config"]["layers"].pop(0)
        assert given["class_name"] == "InputLayer"
        model["config"]["layers"][0]["config"]["batch_input_shape"] = given["config"]["batch_input_shape"]
        return json.dumps(model)

    _, asked, answers = unpack("sequences.keras", tmp_path)
    assert largest_difference(predict(edited("sequences.keras", tmp_path, edit), asked), answers) < 1e-5


def test_names_of_tf_keras_are_those_of_keras(tmp_path: Path) -> None:
    """Who sets TF_USE_LEGACY_KERAS has files with the package's other name."""

    def edit(config: str) -> str:
        assert config.count('"module": "keras') > 10
        return re.sub(r'"module": "keras', '"module": "tf_keras', config)

    _, asked, answers = unpack("transfer.keras", tmp_path)
    assert largest_difference(predict(edited("transfer.keras", tmp_path, edit), asked), answers) < 1e-5


def test_keras_3_loads_its_own(tmp_path: Path) -> None:
    """A file of Keras 3 says so and is left to Keras; what neither wrote has no version."""
    keras = load_keras()
    for suffix in (".keras", ".h5"):
        keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]).save(tmp_path / f"new{suffix}")
        assert version_of_writer(tmp_path / f"new{suffix}") == keras.__version__
    for content in (b"", b"x" * 100):
        (tmp_path / "none.keras").write_bytes(content)
        assert version_of_writer(tmp_path / "none.keras") == ""
    shutil.copy(GOLDEN / "keras2.zip", tmp_path / "other.keras")
    assert version_of_writer(tmp_path / "other.keras") == ""
