"""Exported gradients, as the shipped runtime computes them, against TensorFlow's own on the same Keras model."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.conversion.gradients import GRADIENTS_NAME, Gradients, Samples, export_gradients
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from litelambda_serving.litert import CompiledModel

_POINTS = 300
_LEAST_COSINE = 0.999
_CAPTUM = Path(__file__).parents[2] / "golden" / "captum.npz"

Make = Callable[[Any], Any]


def _mlp(keras: Any) -> Any:
    layers = keras.layers
    row = keras.Input((6,), name="row")
    hidden = layers.BatchNormalization()(layers.Dense(16, "relu")(row))
    return keras.Model(row, layers.Dense(3, "softmax", name="classes")(layers.Dense(8, "gelu")(hidden)))


def _cnn(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((11, 12, 2), name="image"),
            layers.Conv2D(4, 3, strides=2, padding="same", activation="relu"),
            layers.MaxPooling2D(3, strides=2, padding="same"),
            layers.UpSampling2D(2, interpolation="bilinear"),
            layers.DepthwiseConv2D(3, strides=2, activation="tanh"),
            layers.SeparableConv2D(6, 2, padding="same", activation="leaky_relu"),
            layers.AveragePooling2D(2, strides=1, padding="same"),
            layers.Conv2D(4, 2, dilation_rate=2, padding="same", activation="elu"),
            layers.MaxPooling2D(2),
            layers.Flatten(),
            layers.Dense(2, "sigmoid", name="marks"),
        ]
    )


def _recurrent(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((4, 3), name="steps"),
            layers.LSTM(4),
            layers.Dense(1, name="value"),
        ]
    )


def _text(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6,), name="tokens", dtype="int32"),
            layers.Embedding(20, 5, embeddings_initializer=keras.initializers.RandomNormal(stddev=1.0)),
            layers.Conv1D(8, 3, padding="same", activation="relu"),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2, "softmax", name="classes"),
        ]
    )


@dataclass(frozen=True)
class Exported:
    """A model in both precisions, its gradients, and rows to ask for."""

    in_float32: Any
    in_float64: Any
    gradients: Gradients
    rows: np.ndarray


@pytest.fixture(scope="module", params=[_mlp, _cnn, _recurrent, _text], ids=lambda make: make.__name__[1:])
def exported(request: pytest.FixtureRequest) -> Exported:
    """A small model of each kind."""
    keras, noise = load_keras(), np.random.default_rng(3)
    keras.utils.set_random_seed(5)
    model = request.param(keras)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("float64")
    twin = request.param(keras)
    keras.config.set_dtype_policy(policy)
    twin.set_weights(model.get_weights())
    shape, is_ids = model.inputs[0].shape[1:], model.inputs[0].dtype == "int32"
    rows = noise.integers(1, 20, (8, *shape)) if is_ids else noise.normal(0, 1.5, (8, *shape))
    rows = rows.astype(model.inputs[0].dtype)
    return Exported(model, twin, export_gradients(model, Samples({model.inputs[0].name: rows})), rows)


def _asked(artifact: bytes, **values: np.ndarray) -> dict[str, np.ndarray]:
    """What the shipped runtime answers, of the whole path unless a span is given."""
    values = {"span": np.array([[0, 1]], "float32"), **values}
    with CompiledModel(artifact) as model:
        (signature,) = model.signatures.values()
        found = model.run(
            signature.key, [np.ascontiguousarray(values[spec.name]).tobytes() for spec in signature.inputs]
        )
        return {
            spec.name: np.frombuffer(data, "float32").reshape(spec.shape)
            for spec, data in zip(signature.outputs, found, strict=True)
        }


def _expected(model: Any, row: np.ndarray, target: int) -> np.ndarray:
    """TensorFlow's gradients at many points of the path, in float64, added up; of tokens those of the embeddings."""
    tf, keras = load_tensorflow(), load_keras()
    rest, end, start = model, tf.cast(row, "float64"), tf.zeros(row.shape, "float64")
    if row.dtype.kind == "i":
        end, start = model.layers[0](row), model.layers[0](np.zeros_like(row))
        rest = keras.Sequential(model.layers[1:])
    places, shares = np.polynomial.legendre.leggauss(_POINTS)
    places = ((places + 1) / 2).reshape(-1, *[1] * (len(end.shape) - 1))
    path = start + places * (end - start)
    with tf.GradientTape() as tape:
        tape.watch(path)
        output = tf.reshape(rest(path, training=False), [_POINTS, -1])[:, target]
    gradients = tape.gradient(output, path).numpy()
    total = (gradients * (shares / 2).reshape(places.shape)).sum(0, keepdims=True) * (end - start).numpy()
    return total.sum(-1) if row.dtype.kind == "i" else total


def test_gradients_are_those_of_tensorflow(exported: Exported) -> None:
    """What the exported graph attributes points where TensorFlow's gradients in float64 do, for every kind of model."""
    outputs = exported.in_float32.outputs[0].shape[-1]
    for number in range(4):
        row, target = exported.rows[number : number + 1], number % outputs
        one_hot = np.eye(outputs, dtype="float32")[[target]]
        found = _asked(exported.gradients.artifact, row_0=row, baseline_0=np.zeros_like(row), target=one_hot)
        expected = _expected(exported.in_float64, row, target).ravel()
        attributions = found["attributions_0"].ravel()
        cosine = attributions @ expected / np.linalg.norm(attributions) / np.linalg.norm(expected)
        assert cosine >= _LEAST_COSINE
        ends = [exported.in_float64(each).numpy()[0, target] for each in (row, np.zeros_like(row))]
        assert found["output"].item() == pytest.approx(ends[0], abs=2e-3)
        assert found["baseline_output"].item() == pytest.approx(ends[1], abs=2e-3)


def test_halves_of_a_path_add_up(exported: Exported) -> None:
    """What is attributed along the two halves of a path is what is attributed along all of it, and they meet."""
    row = exported.rows[:1]
    asked = {
        "row_0": row,
        "baseline_0": np.zeros_like(row),
        "target": np.eye(exported.in_float32.outputs[0].shape[-1], dtype="float32")[:1],
    }
    spans = [np.array([span], "float32") for span in ((0, 1), (0, 0.5), (0.5, 1))]
    whole, first, second = (_asked(exported.gradients.artifact, **asked, span=span) for span in spans)
    assert first["output"] == pytest.approx(second["baseline_output"], abs=1e-5)
    assert second["output"] == pytest.approx(whole["output"], abs=1e-5)
    added, largest = first["attributions_0"] + second["attributions_0"], np.abs(whole["attributions_0"]).max()
    np.testing.assert_allclose(added, whole["attributions_0"], atol=0.05 * largest)


def test_the_manifest_is_told_what_was_exported(exported: Exported) -> None:
    """The inputs and outputs by name, the points on the path and what they leave unexplained are noted."""
    noted = dict(exported.gradients.document or {})
    assert exported.gradients.note == ""
    assert (noted["file"], noted["inputs"]) == (GRADIENTS_NAME, [exported.in_float32.inputs[0].name])
    assert noted["outputs"] == [exported.in_float32.layers[-1].name]
    assert noted["completeness_error"] <= 0.01
    assert noted["steps"] in (12, 16, 24, 32, 48, 64)
    assert noted["weights"] == "float16"


def _of_captum(keras: Any, name: str) -> Any:
    """The network of tests/golden/make_captum.py, with its weights."""
    layers = keras.layers
    first = [
        keras.Input((8, 8, 2), name="row"),
        layers.Conv2D(4, 3, padding="same", activation="relu"),
        layers.MaxPooling2D(2),
        layers.Flatten(),
    ]
    hidden = [layers.Dense(8, "relu"), layers.Dense(3, "softmax")]
    wide = [keras.Input((6,), name="row"), layers.Dense(16, "relu")]
    return keras.Sequential([*(first if name == "cnn" else wide), *hidden])


@pytest.mark.parametrize("name", ["mlp", "cnn"])
def test_gradients_are_those_of_captum(name: str) -> None:
    """Of the same weights in PyTorch, from baselines of any kind, Captum computes the same along a path in parts."""
    with np.load(_CAPTUM) as captum:
        arrays = {key.removeprefix(f"{name}_"): captum[key] for key in captum if key.startswith(name)}
    model = _of_captum(load_keras(), name)
    model.set_weights([arrays[f"weight_{place}"] for place in range(len(model.get_weights()))])
    gradients = export_gradients(model, Samples({"row": arrays["rows"]}, {"row": arrays["baselines"][0]}))
    for row, baseline, target, expected in zip(
        *(arrays[key] for key in ("rows", "baselines", "targets", "attributions")), strict=True
    ):
        one_hot = np.eye(3, dtype="float32")[[target]]
        asked = {"row_0": row[None], "baseline_0": baseline[None], "target": one_hot}
        spans = [np.array([[start / 8, (start + 1) / 8]], "float32") for start in range(8)]
        found = sum(_asked(gradients.artifact, **asked, span=span)["attributions_0"] for span in spans)
        lengths = np.linalg.norm(found) * np.linalg.norm(expected)
        assert found.ravel() @ expected.ravel() >= _LEAST_COSINE * lengths
        assert found.sum() == pytest.approx(expected.sum(), rel=0.01, abs=1e-3)


def _refused(keras: Any) -> Mapping[str, tuple[Any, np.ndarray]]:
    layers = keras.layers
    words = keras.Input((1,), name="word", dtype="string")
    looked_up = layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")(words)
    ids = keras.Input((4,), name="ids", dtype="int32")
    counted = layers.CategoryEncoding(9, output_mode="multi_hot")(ids)
    return {
        "input 'word' of string has no gradient": (
            keras.Model(words, layers.Dense(2)(looked_up)),
            np.array([[b"a"]], object),
        ),
        "input 'ids' has whole numbers, which no Embedding layer reads as they are": (
            keras.Model(ids, layers.Dense(2)(counted)),
            np.array([[1, 2, 3, 4]], "int32"),
        ),
    }


def test_a_model_without_gradients_says_why() -> None:
    """A model whose inputs are looked up has no artifact, and one line says which input it is."""
    for reason, (model, rows) in _refused(load_keras()).items():
        gradients = export_gradients(model, Samples({model.inputs[0].name: rows}))
        assert (gradients.artifact, gradients.document, gradients.note) == (b"", None, reason)
