"""What the build makes says the same on tflite-runtime 2.14, TensorFlow Lite's last release under its old name."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda.bench.peers import make_peer_environment
from litelambda.common.errors import BenchError
from litelambda.conversion.quantize import quantize
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.sections import Quantize
from litelambda_serving.litert import CompiledModel

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

ROWS = 64
SCRIPT = """
import sys
import numpy as np
from tflite_runtime.interpreter import Interpreter
model, rows, results = sys.argv[1:]
runner = Interpreter(model, num_threads=1).get_signature_runner("predict")
rows = dict(np.load(rows))
count = len(next(iter(rows.values())))
outputs = [runner(**{name: values[row:row + 1] for name, values in rows.items()}) for row in range(count)]
np.savez(results, **{name: np.concatenate([output[name] for output in outputs]) for name in outputs[0]})
"""


@pytest.fixture(scope="module")
def python() -> str:
    """A Python 3.11 with tflite-runtime and nothing of the toolchain."""
    try:
        return str(make_peer_environment("tflite-runtime", "3.11"))
    except BenchError as error:
        pytest.skip(f"no tflite-runtime here: {error}")


@pytest.fixture(scope="module")
def picture_tflite() -> bytes:
    """A small convolutional classifier of 8 by 8 pictures, in int8 with float32 edges."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1), name="picture"),
            layers.Conv2D(4, 3, padding="same", activation="relu"),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, "softmax", name="probabilities"),
        ],
        name="picture",
    )
    rows = np.random.default_rng(0).random((32, 8, 8, 1), np.float32)
    return quantize(model, {"picture": rows}, Quantize()).artifact


@pytest.fixture(scope="module")
def built_tflite(built_artifact: Any) -> bytes:
    """The artifact of a whole build, trained and published."""
    return bytes((built_artifact.folder / "model.tflite").read_bytes())


@pytest.fixture(params=["tiny_tflite", "tiny_uint8_tflite", "two_way_tflite", "picture_tflite", "built_tflite"])
def artifact(request: pytest.FixtureRequest) -> bytes:
    """Artifacts of the build's own stages: dense and convolutional, with float and with integer edges."""
    made: bytes = request.getfixturevalue(request.param)
    return made


def test_predictions_are_the_same_within_a_quantization_step(python: str, artifact: bytes, tmp_path: Path) -> None:
    """On random rows every output of tflite-runtime's kernels is at most one step from the shipped runtime's."""
    noise = np.random.default_rng(0)
    with CompiledModel(artifact) as model:
        signature = model.signatures["predict"]
        rows = {spec.name: _random(spec, noise) for spec in signature.inputs}
        ours = _run(model, rows)
        steps = {spec.name: _step(spec, ours[spec.name]) for spec in signature.outputs}
    theirs = _run_there(python, artifact, rows, tmp_path)
    assert theirs.keys() == ours.keys()
    for name, values in ours.items():
        assert theirs[name].dtype == values.dtype
        difference = np.abs(theirs[name].astype(np.float64) - values.astype(np.float64)).max()
        assert difference <= steps[name] * 1.0001, name


def _random(spec: Any, noise: np.random.Generator) -> np.ndarray[Any, Any]:
    shape = (ROWS, *spec.shape[1:])
    if spec.dtype.kind == "float":
        return noise.random(shape, np.float32)
    bounds = np.iinfo(spec.dtype.name)
    return noise.integers(bounds.min, bounds.max, shape, spec.dtype.name, endpoint=True)


def _run(model: CompiledModel, rows: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    signature = model.signatures["predict"]
    results: dict[str, list[Any]] = {spec.name: [] for spec in signature.outputs}
    for row in range(ROWS):
        outputs = model.run("predict", [rows[spec.name][row : row + 1].tobytes() for spec in signature.inputs])
        for spec, data in zip(signature.outputs, outputs, strict=True):
            results[spec.name].append(np.frombuffer(data, spec.dtype.name).reshape(1, *spec.shape[1:]))
    return {name: np.concatenate(values) for name, values in results.items()}


def _step(spec: Any, values: np.ndarray[Any, Any]) -> float:
    """One quantization step: a code for integer outputs, else the distance between the values that occur."""
    if spec.dtype.kind != "float":
        return 1.0
    distinct = np.unique(values)
    return float(np.diff(distinct).min())


def _run_there(
    python: str, artifact: bytes, rows: dict[str, np.ndarray[Any, Any]], folder: Path
) -> dict[str, np.ndarray[Any, Any]]:
    (folder / "model.tflite").write_bytes(artifact)
    arrays: dict[str, Any] = {**rows}
    np.savez(folder / "rows.npz", **arrays)
    done = subprocess.run(
        [python, "-I", "-c", SCRIPT, *(str(folder / name) for name in ("model.tflite", "rows.npz", "results.npz"))],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return dict(np.load(folder / "results.npz"))
