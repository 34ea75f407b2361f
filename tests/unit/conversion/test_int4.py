"""Native int4: which layers, what the flatbuffer holds, and the traps of ai-edge-quantizer."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.tools import flatbuffer_utils

from litelambda.artifact.flatbuffer import float_operators
from litelambda.artifact.reference import Reference
from litelambda.common.child_process import shared_folder
from litelambda.common.errors import ConversionError, RecipeError
from litelambda.conversion import int4 as int4_module
from litelambda.conversion import quantize as quantize_module
from litelambda.conversion.converter import Conversion, convert
from litelambda.conversion.export import export
from litelambda.conversion.int4 import (
    calibration_rows,
    is_slower,
    layers_for_int4,
    lift_empty_channels,
    quantize_static,
    to_int4,
)
from litelambda.evaluation.verify import verify
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from litelambda.recipe.sections import Quantize
from support.weights import weight_codes


def make_model(**settings: Any) -> Any:
    """Conv 4 -> Flatten -> Dense 12 relu "hidden" -> Dense 3 softmax "scores", the hidden kernel on int4's grid."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    image = keras.Input(**{"shape": (5, 5, 1), "name": "image", **settings})
    features = keras.layers.Flatten(name="flat")(keras.layers.Conv2D(4, 3, activation="relu", name="conv")(image))
    hidden = keras.layers.Dense(12, "relu", name="hidden")
    model = keras.Model(image, keras.layers.Dense(3, "softmax", name="scores")(hidden(features)), name="small")
    sevenths = np.random.default_rng(1).integers(-6, 7, (36, 12))
    sevenths[0] = 7  # the largest of each channel
    hidden.kernel.assign(sevenths / 70)
    return model


@pytest.fixture(scope="module")
def model() -> Any:
    return make_model()


@pytest.fixture(scope="module")
def rows() -> dict[str, Any]:
    return {"image": np.random.default_rng(2).random((64, 5, 5, 1), dtype=np.float32)}


def convert_to_float(model: Any) -> bytes:
    with tempfile.TemporaryDirectory(dir=shared_folder()) as scratch:
        folder = Path(scratch)
        convert([Conversion("model", str(export(model, folder / "model")), str(folder / "float.tflite"))])
        return (folder / "float.tflite").read_bytes()


@pytest.fixture(scope="module")
def in_float(model: Any) -> bytes:
    """The model in float32."""
    return convert_to_float(model)


def parse(artifact: bytes) -> Any:
    """A flatbuffer as objects that can be changed."""
    return flatbuffer_utils.read_model_from_bytearray(bytearray(artifact))


def test_int4_weights_are_exact_and_verified(model: Any, in_float: bytes, rows: dict[str, Any]) -> None:
    """Weights on the grid become those int4 codes; the runtime gives the Interpreter's bits, in batches too."""
    layers = layers_for_int4(model, in_float, ["hidden"])
    artifact = to_int4(in_float, layers, rows, "float32")
    graph = parse(artifact).subgraphs[0]
    (weights,) = (tensor for tensor in graph.tensors if tensor.type == schema.TensorType.INT4)
    assert list(weights.shape) == [12, 36]
    (codes,) = (codes for codes in weight_codes(artifact) if codes.size == 12 * 36)
    assert np.array_equal(codes.reshape(12, 36).T, np.round(70 * np.array(model.get_layer("hidden").kernel)))
    assert float_operators(artifact) == []
    assert verify(artifact, rows).batching["dynamic"] is True
    answers = [Reference(each).run_real(rows, 1)["scores"] for each in (artifact, in_float)]
    assert np.abs(answers[0] - answers[1]).max() < 0.02
    assert to_int4(in_float, layers, rows, "float32") == artifact


def test_which_layers_get_int4(model: Any, in_float: bytes) -> None:
    """All Dense layers, or those that are named; what is none, or was merged by the converter, is refused."""
    found = layers_for_int4(model, in_float, "auto")
    assert list(found) == ["hidden", "scores"]
    assert layers_for_int4(model, in_float, ["scores"]) == {"scores": found["scores"]}
    with pytest.raises(ConversionError, match=r"quantize\.int4: no Dense layer 'conv'; the model has hidden, scores"):
        layers_for_int4(model, in_float, ["conv"])
    with pytest.raises(ConversionError, match=r"merged the layer 'hidden' .* compress\.fold_batch_norm = true"):
        layers_for_int4(make_model(name="other"), parse_and_change(in_float), ["hidden"])


def parse_and_change(artifact: bytes) -> bytes:
    """The same model with other weights in every constant of the hidden layer's shape, as folding makes them."""
    model = parse(artifact)
    for tensor in model.subgraphs[0].tensors:
        if list(tensor.shape) == [12, 36]:
            halved = np.frombuffer(bytes(model.buffers[tensor.buffer].data), np.float32) / 2
            model.buffers[tensor.buffer].data = halved.view(np.uint8)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def test_empty_channels_keep_a_tiny_weight(rows: dict[str, Any]) -> None:
    """Left alone, ai-edge-quantizer loses the bias of a channel without weights; with a tiny one it is right."""
    model = make_model()
    for name in ("conv", "hidden"):
        kernel = np.array(model.get_layer(name).kernel)
        kernel[..., 1] = 0
        model.get_layer(name).set_weights([kernel, np.full(kernel.shape[-1], 0.3, np.float32)])
    in_float = convert_to_float(model)
    expected = Reference(in_float).run_real(rows, 1)["scores"]
    (operator,) = layers_for_int4(model, in_float, ["hidden"])["hidden"]
    with pytest.warns(RuntimeWarning, match="invalid value encountered in cast"):
        quantize_static(in_float, [rows], [operator], raw_edges=False)
    lifted = parse(in_float)
    lift_empty_channels(lifted)
    lifted_float = bytes(flatbuffer_utils.convert_object_to_bytearray(lifted))
    assert np.abs(Reference(lifted_float).run_real(rows, 1)["scores"] - expected).max() < 1e-3
    artifact = quantize_static(lifted_float, [rows], [operator], raw_edges=False)
    assert np.abs(Reference(artifact).run_real(rows, 1)["scores"] - expected).max() < 0.02


def test_calibration_is_one_large_batch(model: Any, in_float: bytes, rows: dict[str, Any]) -> None:
    """Over many calls ai-edge-quantizer smooths the ranges until they are too narrow; one batch has them exactly."""
    (operator,) = layers_for_int4(model, in_float, ["hidden"])["hidden"]
    one_by_one = [{"image": rows["image"][at : at + 1]} for at in range(64)]
    keras = load_keras()
    hidden = keras.Model(model.inputs, model.get_layer("hidden").output).predict(rows["image"], verbose=0)
    spans = [
        hidden_span(artifact)
        for artifact in (
            to_int4(in_float, {"hidden": [operator]}, rows, "float32"),
            quantize_static(in_float, one_by_one, [operator], raw_edges=False),
        )
    ]
    assert spans[0] == pytest.approx(hidden.max(), rel=1e-4)
    assert spans[1] < 0.95 * hidden.max()


def hidden_span(artifact: bytes) -> float:
    """The largest value that the hidden layer's int8 grid reaches."""
    (tensor,) = (t for t in parse(artifact).subgraphs[0].tensors if list(t.shape) == [1, 12])
    return float(tensor.quantization.scale[0] * (127 - tensor.quantization.zeroPoint[0]))


def test_calibration_fits_into_memory(in_float: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many rows as their activations leave room for, but not so few that ranges mean nothing."""
    model = parse(in_float)
    assert calibration_rows(model, 200) == 200
    monkeypatch.setattr(int4_module, "_CALIBRATION_BYTES", 4 * 200 * 50)
    assert 16 < calibration_rows(model, 200) < 200
    monkeypatch.setattr(int4_module, "_CALIBRATION_BYTES", 1)
    assert calibration_rows(model, 200) == 16
    assert calibration_rows(model, 3) == 3


def test_a_fixed_batch_is_refused(rows: dict[str, Any]) -> None:
    """A model of exactly one row cannot be calibrated with a large batch, and the message says what to do."""
    model = make_model(shape=None, batch_shape=(1, 5, 5, 1))
    in_float = convert_to_float(model)
    layers = layers_for_int4(model, in_float, "auto")
    with pytest.raises(ConversionError, match=r"quantize\.int4: the batch size is static"):
        to_int4(in_float, layers, rows, "float32")


def test_what_ai_edge_quantizer_refuses_is_passed_on(in_float: bytes) -> None:
    """Its own words for rows that do not fit, with the layers that were asked for."""
    bad = {"picture": np.zeros((4, 5, 5, 1), np.float32)}
    with pytest.raises(ConversionError, match=r"cannot make int4 weights of the layers hidden: KeyError: 'image'"):
        to_int4(in_float, {"hidden": ["x"]}, bad, "float32")


@pytest.mark.parametrize(("slower", "bits"), [(False, {"conv": 8, "hidden": 4, "scores": 4}), (True, None)])
def test_auto_takes_int4_where_it_is_not_slower(
    model: Any, rows: dict[str, Any], monkeypatch: pytest.MonkeyPatch, slower: bool, bits: Mapping[str, int] | None
) -> None:
    """What the shipped runtime takes decides; the manifest has the bits of each layer where int4 was taken."""
    monkeypatch.setattr(quantize_module, "is_slower", lambda candidate, than: slower and len(candidate) < len(than))
    quantized = quantize_module.quantize(model, rows, Quantize(int4="auto"))
    assert quantized.weight_bits == bits
    assert quantized.to_json().get("weight_bits") == bits
    assert quantized.to_json()["scheme"] == "int8"
    types = {tensor.type for tensor in parse(quantized.artifact).subgraphs[0].tensors}
    assert (schema.TensorType.INT4 in types) != slower


def test_the_best_of_several_measurements_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One disturbed measurement changes nothing, and neither does what is within the noise."""
    taken = {b"int4": [9.0, 1.01, 9.0], b"int8": [1.0, 9.0, 9.0]}
    monkeypatch.setattr(int4_module, "measure_latency_us", lambda artifact: taken[artifact].pop())
    assert not is_slower(b"int4", b"int8")
    taken.update({b"int4": [1.2, 1.1, 1.3], b"int8": [9.0, 1.0, 9.0]})
    assert is_slower(b"int4", b"int8")


@pytest.mark.parametrize("override", ["quantize.io=uint8", "quantize.scheme=dynamic"])
def test_int4_needs_int8_around_it(tiny_recipe: Path, override: str) -> None:
    """Weights in int4 beside uint8 edges or float activations are a contradiction, named by its path."""
    with pytest.raises(RecipeError, match=r"quantize\.int4: needs quantize\.scheme = 'int8' and quantize\.io"):
        load_recipe(tiny_recipe, ['quantize.int4=["hidden"]', override])
