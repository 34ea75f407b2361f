"""Quantize: what the flatbuffers are like, and how a model that cannot be converted is reported."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.artifact.flatbuffer import FlatbufferTensor, float_operators, read_signatures
from litelambda.artifact.reference import Reference, to_codes, to_reals
from litelambda.common.child_process import ChildProcess
from litelambda.common.errors import ConversionError
from litelambda.conversion import converter, recurrent_layers
from litelambda.conversion.quantize import quantize
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.sections import Quantize


def rows_for(model: Any, num_rows: int = 32) -> dict[str, Any]:
    """Seeded random rows for each input of a model."""
    noise = np.random.default_rng(0)
    return {tensor.name: noise.random((num_rows, *tensor.shape[1:]), dtype=np.float32) for tensor in model.inputs}


def test_int8_has_float_edges_and_the_models_own_names(tiny_tflite: bytes) -> None:
    """The signature "predict" takes and gives float32 under the Keras names, with a batch dimension."""
    (signature,) = read_signatures(tiny_tflite)
    assert signature.key == "predict"
    assert signature.inputs == (FlatbufferTensor("features", "float32", (-1, 4), None),)
    assert signature.outputs == (FlatbufferTensor("probabilities", "float32", (-1, 3), None),)
    assert float_operators(tiny_tflite) == []


def test_int8_answers_like_the_float_model(tiny_model: Any, tiny_tflite: bytes) -> None:
    """Probabilities differ by a few steps of the output's scale at most."""
    rows = rows_for(tiny_model)
    expected = tiny_model.predict(rows["features"], verbose=0)
    answer = Reference(tiny_tflite).run_real(rows, 1)["probabilities"]
    assert np.abs(answer - expected).max() <= 4 / 256


def test_bytes_do_not_depend_on_what_was_converted_before(
    tiny_model: Any, two_way_model: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that converted other models gives the bytes that a fresh one gives."""
    models = (tiny_model, two_way_model, tiny_model)
    with ChildProcess() as process:
        monkeypatch.setattr(converter, "_PROCESS", process)
        artifacts = [quantize(model, rows_for(model), Quantize()).artifact for model in models]
    assert artifacts[0] == artifacts[2]
    assert artifacts[0] != artifacts[1]


def test_raw_edges_carry_their_scale(tiny_uint8_tflite: bytes) -> None:
    """With quantize.io = "uint8" both edges are codes, and values in 0-1 have zero point 0."""
    (signature,) = read_signatures(tiny_uint8_tflite)
    for tensor in (*signature.inputs, *signature.outputs):
        assert tensor.dtype == "uint8"
        assert tensor.quantization is not None
        scale, zero_point = tensor.quantization
        assert scale == pytest.approx(1 / 256, rel=0.02)
        assert zero_point == 0


def test_several_inputs_and_outputs_keep_their_names(two_way_model: Any, two_way_tflite: bytes) -> None:
    """A model with two inputs and two outputs is called by name, whatever the flatbuffer's order."""
    rows = rows_for(two_way_model)
    expected = dict(
        zip(two_way_model.output_names, two_way_model.predict([rows["left"], rows["right"]], verbose=0), strict=True)
    )
    answer = Reference(two_way_tflite).run_real(rows, 1)
    assert set(answer) == {"class", "score"}
    for name, values in expected.items():
        assert np.abs(answer[name] - values).max() < 0.05


def test_flatten_and_reshape_become_constant() -> None:
    """No SHAPE operator is left of Flatten and Reshape, and rows in a batch do not change each other."""
    keras = load_keras()
    image = keras.Input((4, 4, 1), name="image")
    hidden = keras.layers.Flatten()(keras.layers.Reshape((2, 8, 1))(image))
    model = keras.Model(image, keras.layers.Dense(3, name="scores")(hidden))
    rows = rows_for(model)
    quantized = quantize(model, rows, Quantize())
    answer = Reference(quantized.float_artifact).run_real(rows, 1)["scores"]
    assert np.allclose(answer, model.predict(rows["image"], verbose=0), atol=1e-6)
    assert "SHAPE" not in float_operators(quantized.float_artifact)
    assert Reference(quantized.artifact).safe_batch(rows, 8) == 8


@pytest.mark.parametrize(
    ("scheme", "note"), [("dynamic", "float32 activations"), ("float16", "float16"), ("float32", "not quantized")]
)
def test_other_schemes_say_that_they_compute_in_float(tiny_model: Any, scheme: Any, note: str) -> None:
    """The weaker schemes convert, stay close to the float model and report what is float and why."""
    rows = rows_for(tiny_model)
    quantized = quantize(tiny_model, rows, Quantize(scheme=scheme))
    assert note in (quantized.note or "")
    assert quantized.float_operators == ["FULLY_CONNECTED", "SOFTMAX"]
    answer = Reference(quantized.artifact).run_real(rows, 1)["probabilities"]
    assert np.abs(answer - tiny_model.predict(rows["features"], verbose=0)).max() < 0.01


def test_operators_without_int8_kernel_are_reported() -> None:
    """A float island inside an int8 model is named, with its reason."""
    keras = load_keras()
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(8, "elu")(inputs)))
    quantized = quantize(model, rows_for(model), Quantize())
    assert quantized.float_operators == ["ELU"]
    assert (quantized.note or "").startswith(
        "TFLite has no int8 kernel for ELU: computed in float32. What to change: ELU"
    )


def test_an_unknown_operator_is_named() -> None:
    """A model with an operator that TFLite lacks is refused by the operator's name."""
    keras = load_keras()
    inputs = keras.Input((8,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.ops.erf(inputs)))
    with pytest.raises(ConversionError, match="TFLite has no operator for Erf"):
        quantize(model, rows_for(model), Quantize())


@pytest.mark.slow
def test_a_crash_of_the_converter_names_the_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """A segmentation fault inside TensorFlow is an error that says which layer causes it."""
    monkeypatch.setattr(recurrent_layers, "MAX_STEPS", 2)  # a loop crashes it as well over few steps as over many
    keras = load_keras()
    inputs = keras.Input(batch_shape=(1, 3, 4), name="x")
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.LSTM(6, name="memory")(inputs)))
    with pytest.raises(ConversionError, match=r"crashed \(SIG.*layer 'memory' \(LSTM\) crashes it on its own"):
        quantize(model, rows_for(model, 4), Quantize())


def test_a_subclassed_model_is_refused() -> None:
    """A model whose inputs have no names cannot become a named signature."""
    with pytest.raises(ConversionError, match="neither a Functional nor a Sequential"):
        quantize(object(), {}, Quantize())


def test_codes_and_reals_round_trip() -> None:
    """Codes of an integer tensor become reals and the same codes again; what is out of range saturates."""
    tensor = FlatbufferTensor("x", "int8", (-1, 256), (0.5, -3))
    codes = np.arange(-128, 128, dtype=np.int8)
    assert np.array_equal(to_codes(to_reals(codes, tensor), tensor), codes)
    assert to_codes(np.array([1e6, -1e6]), tensor).tolist() == [127, -128]
