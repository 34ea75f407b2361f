"""Training and compression on JAX, conversion on TensorFlow: what holds on one backend holds on the other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.common.errors import UsageError
from litelambda.keras_tools import backend
from litelambda_serving.artifact import fetch_artifact
from litelambda_serving.litert import CompiledModel
from litelambda_serving.store import open_store

FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
"""For models as small as these, compiling them well costs more than it saves."""
WORKER = Path(__file__).parents[1] / "support" / "jax_worker.py"
DIGITS = Path(__file__).parents[2] / "build" / "data" / "mnist.npz"
PICTURES = """
[model]
builder = "cnn"
filters = [4]
dense = [32]
batch_norm = true
[data]
format = "npz"
path = "pictures.npz"
normalize = "0-1"
reshape = [14, 14, 1]
validation_split = 0.2
[train]
loss = "sparse_categorical_crossentropy"
optimizer = { name = "adam", learning_rate = 0.004 }
epochs = 6
[publish]
name = "pictures"
"""
SMALL = """
[model]
function = "jax_models:gated"
[data]
format = "npz"
path = "small.npz"
normalize = "0-1"
[train]
loss = "sparse_categorical_crossentropy"
optimizer = { name = "adam", learning_rate = 0.02 }
epochs = 6
batch_size = 32
[compress]
exclude = ["gate"]
quantization_aware = { bits = 4, epochs = 1 }
[quantize]
representative_samples = 50
[gate]
max_accuracy_drop = 0.05
[publish]
name = "small"
report_examples = 0  # drawn and explained in tests/unit/publishing
"""
MODELS = """
import keras

@keras.saving.register_keras_serializable()
def softer(x):
    return keras.ops.relu(x + 0.1)

class Gate(keras.layers.Layer):
    def call(self, x):
        return x * keras.ops.sigmoid(x)

def gated(input_shape, num_classes):
    return keras.Sequential([
        keras.Input(input_shape, name="features"),
        keras.layers.Dense(16, activation=softer, name="hidden"),
        Gate(name="gated"),
        keras.layers.Dense(8, name="gate"),
        keras.layers.Dense(num_classes, "softmax", name="probabilities"),
    ])
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes and their data: some of MNIST at 14 x 14, and three classes told by which value is largest."""
    made = tmp_path_factory.mktemp("jax")
    with np.load(DIGITS) as arrays:
        rows = {name: arrays[name][: 1280 if name.endswith("train") else 256] for name in arrays.files}
    np.savez(made / "pictures.npz", **{name: a[:, ::2, ::2] if a.ndim == 3 else a for name, a in rows.items()})
    x = np.random.default_rng(0).integers(0, 256, (640, 4), dtype=np.uint8)
    np.savez(made / "small.npz", x=x, y=x[:, :3].argmax(axis=1))
    (made / "pictures.toml").write_text(PICTURES)
    (made / "small.toml").write_text(SMALL)
    (made / "jax_models.py").write_text(MODELS)
    return made


def on_jax(command: list[str], folder: Path, **environment: str) -> dict[str, Any]:
    """The one JSON document that a command prints; what JAX compiled once, no command compiles again."""
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    variables = (
        os.environ
        | {"KERAS_BACKEND": "jax", "XLA_FLAGS": FLAGS, "PYTHONPATH": str(WORKER.parents[1])}
        | cache
        | environment
    )
    done = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    document: dict[str, Any] = json.loads(done.stdout)
    return document


@pytest.fixture(scope="module")
def found(folder: Path) -> dict[str, Any]:
    """All steps in one process, which sees two devices: JAX takes seconds to start and to compile."""
    command = [sys.executable, str(WORKER), str(folder), str(folder / "library")]
    return on_jax(command, folder, XLA_FLAGS=f"{FLAGS} --xla_force_host_platform_device_count=2")


@pytest.mark.slow
def test_training_learns(found: dict[str, Any]) -> None:
    """The loss falls; schedules, class weights, augmentation and early stopping do what they do on TensorFlow."""
    assert found["backend"] == "jax"
    assert found["train"]["alone"][1] < found["train"]["alone"][0]
    assert found["train"]["settings"][1] < found["train"]["settings"][0]
    assert len(found["train"]["settings"]) == 2
    assert found["train"]["in_16_bits"] == pytest.approx(found["train"]["alone"], rel=0.05)
    assert found["train"]["in_16_bits"] != found["train"]["alone"]


@pytest.mark.slow
def test_two_devices_share_a_training(found: dict[str, Any]) -> None:
    """Half of every batch each, but for an odd row: the loss falls as on one, and what comes out lives on one."""
    trained = found["train"]
    assert trained["shared"] == pytest.approx(trained["alone"], rel=0.05)
    assert len(trained["devices_of_shared"]) == 1
    assert trained["answers_of_shared"] == [128, 3]


@pytest.mark.slow
def test_what_cannot_be_trained_is_refused(found: dict[str, Any]) -> None:
    """A loss that is no number, batches that two devices cannot share, a device that is not there."""
    trained = found["train"]
    assert "the loss became" in trained["no_number"]
    assert trained["no_equal_parts"].endswith("cannot be split into equal parts for 2 devices: use 32 or 34")
    assert trained["no_device"] == "train.devices: no device TPU:0; this machine has CPU:0, CPU:1"


@pytest.mark.slow
def test_every_step_of_compression_keeps_its_promise(found: dict[str, Any]) -> None:
    """Layers, ranks, zeros and distinct values are those asked for; the model that was trained stays as it was."""
    steps = found["compress"]
    assert steps["folding"]["names"] == ["norm_1"]
    assert steps["folding"]["apart"] < 1e-5
    assert steps["structured"]["kernels"] == [[3, 3, 1, 2], [98, 16], [16, 10]]
    assert steps["structured"]["loss"][1] < steps["structured"]["loss"][0]
    assert steps["wanda"]["sparsity"] == pytest.approx(0.8, abs=0.01)
    assert steps["wanda"]["alive"]
    assert steps["wanda"]["excluded"] == 0
    assert max(steps["clustering"]["distinct"]) <= 8
    assert min(steps["wanda"]["accuracy"], steps["clustering"]["accuracy"]) > 0.5
    assert steps["untouched"]


@pytest.mark.slow
def test_a_teacher_is_followed(found: dict[str, Any]) -> None:
    """Two thin kernels of the asked-for rank learn from the trained model what the labels have wrong."""
    assert found["compress"]["taught_low_rank"]["rank"] == 8
    assert found["compress"]["taught_low_rank"]["accuracy"] > 0.5


@pytest.mark.slow
def test_quantization_aware_training_ends_on_its_grid(found: dict[str, Any]) -> None:
    """Bits by layer, activations watched, with at least the zeros of the pruning before it."""
    grids = found["compress"]["grids"]
    assert grids["pruned"]["dense_1"] == pytest.approx(0.6, abs=0.01)
    assert grids["sparsity"] >= grids["pruned"]["dense_1"]
    assert set(grids["codes"]["dense_1"]) <= {-127, -85, -42, 0, 42, 85, 127}
    assert set(grids["codes"]["output"]) <= {round(step * 127 / 7) for step in range(-7, 8)}
    assert all(low <= 0 < high for low, high in grids["ranges"].values())
    assert grids["accuracy"] > 0.5


@pytest.mark.slow
def test_a_search_finds_a_smaller_model(found: dict[str, Any]) -> None:
    """Candidates are trained on JAX, converted and measured; the smallest that is good enough is taken."""
    search = found["compress"]["search"]
    tried = {each["name"]: each for each in search["tried"]}
    assert list(tried) == ["float32", "int8", "int8, sketched", "int8, 80% zeros, 4 bits"]
    assert not any(each["problem"] for each in tried.values())
    assert tried[search["chosen"]]["stored"] < tried["int8"]["stored"] / 1.5
    assert search["accuracy_in_float"] > 0.5


@pytest.mark.slow
def test_a_build_is_one_command(folder: Path, found: dict[str, Any]) -> None:
    """KERAS_BACKEND=jax alone: trained and compressed on JAX, converted, verified, published, and it predicts.

    The model has a layer and an activation of the user's own. Another process built the same recipe: the same bytes.
    """
    store = folder / "command"
    command = [sys.executable, "-m", "litelambda", "build", str(folder / "small.toml"), "--store", store.as_uri()]
    result = on_jax([*command, "--json", "--set", "train.devices=['CPU:0']"], folder)
    assert result["metrics"]["quantized"]["accuracy"] > 0.85
    artifact = fetch_artifact(open_store(store.as_uri()), "small", "latest")
    assert artifact.manifest.fields["recipe"]["train"]["backend"] == "jax"
    assert {"jax", "tensorflow"} <= set(artifact.manifest.fields["tools"])
    with CompiledModel(artifact.model) as model:
        (answer,) = model.run("predict", [np.float32([[0.9, 0.1, 0.2, 0.5], [0.1, 0.2, 0.9, 0.9]]).tobytes()], batch=2)
    assert np.frombuffer(answer, np.float32).reshape(2, 3).argmax(axis=1).tolist() == [0, 2]
    assert (folder / "library" / "small" / "1" / "model.tflite").read_bytes() == bytes(artifact.model)


@pytest.fixture
def before_keras(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """As in a process that has not imported Keras yet; what a test chooses is forgotten after it."""
    monkeypatch.delitem(sys.modules, "keras", raising=False)
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(backend._Chosen, "backend", "tensorflow")
    return monkeypatch


@pytest.mark.parametrize(
    ("in_recipe", "in_environment", "chosen"),
    [(None, "", "tensorflow"), (None, "jax", "jax"), ("jax", "", "jax"), ("tensorflow", "tensorflow", "tensorflow")],
)
def test_recipe_and_environment_choose_the_backend(
    before_keras: pytest.MonkeyPatch, in_recipe: Any, in_environment: str, chosen: str
) -> None:
    """Either may say; TensorFlow where neither does."""
    before_keras.setenv("KERAS_BACKEND", in_environment)
    assert backend.choose_backend(in_recipe) == backend.backend() == chosen


@pytest.mark.parametrize(
    ("in_recipe", "in_environment", "message"),
    [
        (None, "torch", "KERAS_BACKEND is 'torch' in the environment, expected 'tensorflow' or 'jax'"),
        ("tensorflow", "jax", "train.backend is 'tensorflow', but KERAS_BACKEND is 'jax' in the environment: unset"),
    ],
)
def test_a_backend_that_cannot_be_is_refused(
    before_keras: pytest.MonkeyPatch, in_recipe: Any, in_environment: str, message: str
) -> None:
    """Another of Keras's backends, and a recipe that says otherwise."""
    before_keras.setenv("KERAS_BACKEND", in_environment)
    with pytest.raises(UsageError, match=message):
        backend.choose_backend(in_recipe)


def test_jax_that_is_not_installed_is_named(before_keras: pytest.MonkeyPatch) -> None:
    """The error has the extra that brings it."""
    before_keras.setattr(backend.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"needs JAX, which is not installed: pip install 'litelambda\[jax\]'"):
        backend.choose_backend("jax")


def test_a_process_keeps_its_backend() -> None:
    """Keras runs on TensorFlow here, and cannot change."""
    backend.load_keras()
    with pytest.raises(UsageError, match="Keras already runs on 'tensorflow' in this process"):
        backend.choose_backend("jax")
