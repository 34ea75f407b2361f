"""Native int4: fully connected layers with weights of four bits, all else in int8, by ai-edge-quantizer.

It runs in a child. Half the size of int8, and faster where memory bandwidth limits a run; convolutions stay
int8, since their int4 kernels are slow.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import SIGNATURE, fully_connected, read_signatures
from litelambda.artifact.latency import measure_latency_us
from litelambda.common.child_process import ChildCrashError, call_in_child
from litelambda.common.errors import ConversionError
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.layers import layers_with_kernel, read

_FLOOR = 1e-4
"""The smallest allowed maximum of an output channel's weights, relative to the tensor's: see `lift_empty_channels`."""
_CALIBRATION_BYTES = 512 * 1024 * 1024  # for the activations of all calibration rows, which are in memory at once
_MIN_CALIBRATION_ROWS = 16
_ROUNDS = 3  # of measuring both in turn; the minimum of each counts, as other processes can only add to it
_SAME = 1.02  # times int8's latency: a smaller difference is within the noise of `measure_latency_us`


def layers_for_int4(model: Any, in_float: bytes, wanted: Sequence[str] | Literal["auto"]) -> dict[str, list[str]]:
    """Find the fully connected operators that are to have int4 weights.

    Args:
        model: the Keras model.
        in_float: its float flatbuffer.
        wanted: names of layers, or "auto" for every Dense layer.

    Returns:
        By layer, the names of its operators' output tensors; empty where "auto" finds none.

    Raises:
        ConversionError: a named layer is not in the model, or does not become a fully connected operator.
    """
    keras = load_keras()
    dense = {name: layer for name, layer in layers_with_kernel(model).items() if isinstance(layer, keras.layers.Dense)}
    found = fully_connected(in_float, {name: read(layer.kernel).T for name, layer in dense.items()})
    if wanted == "auto":
        return found
    for name in wanted:
        if name not in dense:
            raise ConversionError(f"quantize.int4: no Dense layer {name!r}; the model has {', '.join(dense) or 'none'}")
        if name not in found:
            raise ConversionError(
                f"quantize.int4: the converter merged the layer {name!r} with others; "
                "where a batch normalization follows it, set compress.fold_batch_norm = true"
            )
    return {name: found[name] for name in wanted}


def weight_bits(model: Any, in_int4: Mapping[str, Any]) -> dict[str, int]:
    """The bits that each layer's weights ship in."""
    return {name: 4 if name in in_int4 else 8 for name in layers_with_kernel(model)}


def to_int4(in_float: bytes, operators: Mapping[str, list[str]], rows: Mapping[str, NDArray[Any]], io: str) -> bytes:
    """Quantize a float flatbuffer to int8, some of its fully connected operators with int4 weights.

    Args:
        in_float: the flatbuffer.
        operators: by layer, from `layers_for_int4`.
        rows: representative rows per input.
        io: dtype at the edges: float32 or int8.

    Raises:
        ConversionError: ai-edge-quantizer refused the model or crashed, or its batch size is static.
    """
    (signature,) = (each for each in read_signatures(in_float) if each.key == SIGNATURE)
    if any(tensor.shape[0] != -1 for tensor in signature.inputs):
        raise ConversionError(
            "quantize.int4: the batch size is static, and ai-edge-quantizer is calibrated with one large batch: "
            "use an open batch size, or remove quantize.int4"
        )
    names = [name for names in operators.values() for name in names]
    try:
        return call_in_child(_quantize, in_float, rows, names, raw_edges=io != "float32")
    except ChildCrashError as error:
        raise ConversionError(
            f"ai-edge-quantizer cannot make int4 weights of the layers {', '.join(operators)}: {error}"
        ) from error


def is_slower(candidate: bytes, than: bytes) -> bool:
    """Whether the shipped runtime takes longer for one row of an artifact than for one row of another."""
    taken = [(measure_latency_us(candidate), measure_latency_us(than)) for _ in range(_ROUNDS)]
    return min(first for first, _ in taken) > _SAME * min(second for _, second in taken)


def _quantize(in_float: bytes, rows: Mapping[str, NDArray[Any]], operators: Sequence[str], *, raw_edges: bool) -> bytes:
    from ai_edge_litert.tools import flatbuffer_utils

    model = flatbuffer_utils.read_model_from_bytearray(bytearray(in_float))
    lift_empty_channels(model)
    count = calibration_rows(model, len(next(iter(rows.values()))))
    batch = {name: values[:count] for name, values in rows.items()}
    lifted = bytes(flatbuffer_utils.convert_object_to_bytearray(model))
    quantized = quantize_static(lifted, [batch], operators, raw_edges=raw_edges)
    model = flatbuffer_utils.read_model_from_bytearray(bytearray(quantized))
    open_batch(model)
    return bytes(flatbuffer_utils.convert_object_to_bytearray(model))


def quantize_static(
    in_float: bytes, batches: Sequence[Mapping[str, NDArray[Any]]], operators: Sequence[str], *, raw_edges: bool
) -> bytes:
    """Quantize to static int8, with int4 weights in some operators.

    Args:
        in_float: the flatbuffer.
        batches: calibration rows; ai-edge-quantizer smooths ranges over batches, so one large batch is best.
        operators: names of their output tensors.
        raw_edges: the model takes and gives int8, not float32.
    """
    from ai_edge_quantizer import quantizer
    from ai_edge_quantizer.algorithm_manager import AlgorithmName
    from ai_edge_quantizer.qtyping import TFLOperationName as Name

    subject = quantizer.Quantizer(in_float)
    subject.add_static_config(".*", Name.ALL_SUPPORTED, 8, 8)
    for operator in operators:
        subject.add_static_config(re.escape(operator), Name.FULLY_CONNECTED, 8, 4)
    if not raw_edges:
        for edge in (Name.INPUT, Name.OUTPUT):
            subject.update_quantization_recipe(".*", edge, algorithm_key=AlgorithmName.NO_QUANTIZE)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*experimental_preserve_all_tensors", UserWarning)  # calibration needs it
        ranges = subject.calibrate({SIGNATURE: [dict(batch) for batch in batches]}, num_threads=1)
        return bytes(subject.quantize(ranges).quantized_model)


def calibration_rows(model: Any, available: int) -> int:
    """The number of rows that fit into one batch: calibration keeps every activation of all of them."""
    row_values: int = sum(
        math.prod(tensor.shape)
        for graph in model.subgraphs
        for tensor in graph.tensors
        if model.buffers[tensor.buffer].data is None
    )
    fitting = _CALIBRATION_BYTES // max(1, 4 * row_values)
    return max(1, min(available, max(fitting, _MIN_CALIBRATION_ROWS)))


def lift_empty_channels(model: Any) -> None:
    """Give every output channel of a weight tensor whose weights are all about zero one tiny weight.

    ai-edge-quantizer gives such a channel a scale so small that its bias does not fit into int32.
    """
    from ai_edge_litert.schema_py_generated import BuiltinOperator, TensorType

    last_is_channel = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            depthwise = model.operatorCodes[operator.opcodeIndex].builtinCode == BuiltinOperator.DEPTHWISE_CONV_2D
            for tensor in (graph.tensors[index] for index in operator.inputs[1:2]):  # where operators have weights
                constant = model.buffers[tensor.buffer].data is not None
                if constant and tensor.type == TensorType.FLOAT32 and len(tensor.shape) > 1:
                    last_is_channel[tensor.buffer] = (depthwise, tensor.shape)
    for buffer, (depthwise, shape) in last_is_channel.items():
        weights = np.frombuffer(bytes(model.buffers[buffer].data), np.float32).copy()
        channels = weights.reshape(-1, shape[-1]).T if depthwise else weights.reshape(shape[0], -1)
        floor = _FLOOR * (float(np.abs(weights).max()) or 1.0)
        channels[np.abs(channels).max(axis=1) < floor, 0] = floor  # a view: `weights` changes
        model.buffers[buffer].data = weights.view(np.uint8)


def open_batch(model: Any) -> None:
    """Mark the batch as open again where ai-edge-quantizer inserted a conversion with a static batch."""
    for graph in model.subgraphs:
        for operator in graph.operators:
            if len(operator.inputs) == len(operator.outputs) == 1:
                source, target = graph.tensors[operator.inputs[0]], graph.tensors[operator.outputs[0]]
                if target.shapeSignature is None and list(source.shape) == list(target.shape):
                    target.shapeSignature, target.hasRank = source.shapeSignature, source.hasRank
