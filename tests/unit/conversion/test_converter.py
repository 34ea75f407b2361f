"""Models that TFLite finds hard: recurrent ones are unrolled, others refused with what to change."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.artifact.flatbuffer import takes_sizes_at_run_time
from litelambda.artifact.reference import Reference
from litelambda.bench.conversion.cases import all_cases
from litelambda.common.child_process import ChildCrashError
from litelambda.common.errors import ConversionError
from litelambda.conversion import converter_process
from litelambda.conversion.converter import Conversion, ConverterCrashError
from litelambda.conversion.export import rewrites_for
from litelambda.conversion.quantize import Quantized, quantize
from litelambda.conversion.recurrent_layers import MAX_STEPS
from litelambda.conversion.remedies import on_float, on_missing
from litelambda.conversion.rewrites import proven, rewritten
from litelambda.evaluation.verify import verify
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from litelambda.keras_tools.graph import call
from litelambda.recipe.sections import Quantize


def make(name: str) -> tuple[Any, dict[str, Any]]:
    """A case of the conversion table: its model, the same in every run, and rows."""
    case = all_cases()[name]
    load_keras().utils.set_random_seed(0)
    model = case.make(load_keras())
    return model, case.rows(model)


def convert(name: str) -> tuple[Any, dict[str, Any], Quantized]:
    """A case through the build's own stage: model, rows and flatbuffers."""
    model, rows = make(name)
    return model, rows, quantize(model, rows, Quantize())


def loops(model: Any) -> bool:
    """Whether the graph that a model makes has a loop."""
    tf = load_tensorflow()
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in model.inputs]
    graph = tf.function(lambda *tensors: call(model, tensors), specs, autograph=False).get_concrete_function().graph
    return any(operation.type.endswith("While") for operation in graph.get_operations())


@pytest.mark.parametrize("name", ["SimpleRNN", "Bidirectional(LSTM)", "ConvLSTM2D", "LSTM, batch of 1"])
def test_recurrent_layers_are_exported_without_their_loop(name: str) -> None:
    """While it is exported a model is unrolled and answers as it does else; it is left as it was."""
    model, rows = make(name)
    (values,) = rows.values()
    expected = np.asarray(model(values[:1]))
    with rewritten(proven(model, rewrites_for(model))):
        assert not loops(model)
        assert np.allclose(model(values[:1]), expected, atol=1e-6)
    assert loops(model)


def test_long_and_open_sequences_keep_their_loop() -> None:
    """Operators grow with the steps, so only sequences of a known, moderate length are unrolled."""
    assert MAX_STEPS < 300
    for name in ("LSTM, 300 steps, any batch", "LSTM, sequence of any length"):
        model, _ = make(name)
        with rewritten(proven(model, rewrites_for(model))):
            assert loops(model)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["Dense over a sequence", "UpSampling2D"])
def test_layers_that_compute_sizes_are_exported_with_constants(name: str) -> None:
    """Nothing is computed from sizes at run time, the values are the same, and batches are proven."""
    model, rows, quantized = convert(name)
    expected = model.predict(rows["x"], verbose=0)
    (answer,) = Reference(quantized.float_artifact).run_real(rows, 1).values()
    assert np.allclose(answer, expected, atol=1e-5)
    assert not takes_sizes_at_run_time(quantized.artifact)
    assert verify(quantized.artifact, rows).batching["dynamic"]


@pytest.mark.slow
def test_a_model_that_cannot_run_batches_is_made_for_one_row() -> None:
    """A transposed convolution, which the runtime refuses with an open batch, runs, in float as in int8."""
    model, rows, quantized = convert("Conv2DTranspose")
    assert quantized.signature.inputs[0].shape == (-1, *model.inputs[0].shape[1:])
    for artifact in (quantized.artifact, quantized.float_artifact):
        assert not takes_sizes_at_run_time(artifact)
        assert verify(artifact, rows).batching == {"dynamic": False, "reason": "the model takes exactly 1 row at once"}


@pytest.mark.slow
def test_an_lstm_over_a_dynamic_batch_becomes_int8() -> None:
    """No step of it stays float; the quantized answers are close."""
    model, rows, quantized = convert("LSTM")
    assert quantized.float_operators == []
    assert quantized.note is None
    expected = model.predict(rows["x"], verbose=0)
    (answer,) = Reference(quantized.artifact).run_real(rows, 1).values()
    assert np.abs(answer - expected).max() < 0.05


@pytest.mark.parametrize(
    ("left_in_float", "tries", "made"),
    [([0], 1, b"0"), ([2, 1, 0], 3, b"2"), ([3, 1, *[2] * 6], 8, b"1")],
    ids=["at once", "at the third try", "never"],
)
def test_int8_is_converted_again_where_luck_left_a_split_in_float(
    monkeypatch: pytest.MonkeyPatch, left_in_float: list[int], tries: int, made: bytes
) -> None:
    """What has none is taken; after eight tries, what has the fewest."""
    artifacts = iter([str(number).encode() for number in range(len(left_in_float))])
    counts = iter(left_in_float)
    monkeypatch.setattr(converter_process, "_convert_once", lambda *_: next(artifacts))
    monkeypatch.setattr(converter_process, "count_half_read_float_splits", lambda _: next(counts))
    assert converter_process._convert(Conversion("a model", "", "", scheme="int8")) == made
    assert list(counts) == left_in_float[tries:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("LSTM, stateful", r"layer 'lstm.*' is stateful, .*make it with stateful=False"),
        (
            "LSTM, 300 steps, any batch",
            r"loops over a dynamic batch: .* at most 256 steps, .* static batch size and do not use",
        ),
        ("TextVectorization", r"takes no numbers, so int8 cannot be calibrated: tokenize or look words up before the"),
        ("MaxPooling3D", r"no operator for MaxPool3D \(layer 'max_pooling3d.*'\): Conv3D with strides"),
    ],
)
def test_what_does_not_convert_says_what_to_change(name: str, message: str) -> None:
    """The error names the layer or operator, and the way out."""
    with pytest.raises(ConversionError, match=message):
        convert(name)


def test_advice_on_operators() -> None:
    """Known operators have advice of their own, several at once all of theirs; unknown ones a general one or none."""
    assert on_float(["ELU"]) == "ELU: activation elu: use relu, relu6, silu or hard_silu"
    assert "SQUARE: " in (on_float(["NEG", "SQUARE"]) or "")
    assert on_float(["SOMETHING_NEW"]) is None
    both = on_missing(["HashTableV2", "StringSplitV2"])
    assert "tokenize" in both
    assert "look words up" in both
    assert on_missing(["SomethingNew"]) == "replace them in the model, or move them before or after it"


def test_a_converter_that_was_killed_blames_memory() -> None:
    """The kernel's SIGKILL and an exhausted limit are told from a crash, so that no layer is looked for."""
    killed = ConverterCrashError("the model 'm'", ChildCrashError("SIGKILL", ""))
    limited = ConverterCrashError("the model 'm'", ChildCrashError("SIGABRT", "  what():  std::bad_alloc"))
    crashed = ConverterCrashError("the model 'm'", ChildCrashError("SIGSEGV", ""))
    assert [error.for_memory for error in (killed, limited, crashed)] == [True, True, False]
    assert "SIGKILL) on the model 'm', out of memory: use a machine with more memory" in str(killed)
    assert str(crashed) == "TensorFlow's converter crashed (SIGSEGV) on the model 'm'"
