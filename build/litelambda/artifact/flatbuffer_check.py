"""Checks an imported flatbuffer before it runs: no state, no random numbers, finite weights; and reads its metadata.

It runs in a child, see `reference_process`: a malicious file may crash its reader.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from flatbuffers import number_types
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import count_float_operators, enum_names, operator_names, parse, read_signatures
from litelambda.common.errors import ConversionError

_STATE_OPERATORS = {"VAR_HANDLE", "READ_VARIABLE", "ASSIGN_VARIABLE"}
_RANDOM_OPERATORS = {"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"}
_FLOATS = {"FLOAT16": np.float16, "FLOAT32": np.float32, "FLOAT64": np.float64}
_METADATA, _NORMALIZATION = b"TFLITE_METADATA", 1


@dataclass(frozen=True)
class Inspected:
    """Findings in a flatbuffer.

    Attributes:
        float_operators: names of those that compute in float.
        refusals: reasons not to publish it, one sentence each.
        normalization: per input, from TFLite's metadata: a model's value is (raw - mean) / std.
    """

    float_operators: list[str]
    refusals: list[str]
    normalization: dict[str, dict[str, list[float]]]


def inspect(path: Path) -> Inspected:
    """Look into a flatbuffer.

    Raises:
        ConversionError: it cannot be read.
    """
    try:
        model = parse(path)
        read_signatures(path)
        in_float = sorted(count_float_operators(path))
        refusals = [*_state(model), *_bad_weights(model)]
        return Inspected(in_float, refusals, _normalization(model))
    except (struct.error, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConversionError(f"{type(error).__name__}: {error}") from error


def _state(model: Any) -> Iterator[str]:
    """Reasons why an answer would depend on earlier requests, or on chance."""
    names = operator_names(model)
    used = {names[operator.opcodeIndex] for graph in model.subgraphs for operator in graph.operators or []}
    if found := sorted(used & _STATE_OPERATORS):
        yield (
            f"it keeps state from one request to the next ({', '.join(found)}), which every caller of the function "
            "shares: export it without variables that it changes, the state as an input and an output"
        )
    for graph in model.subgraphs:
        kept = {index for index, tensor in enumerate(graph.tensors) if tensor.isVariable}
        for operator in graph.operators or []:
            if kept.intersection(map(int, operator.inputs)):
                yield (
                    f"its {names[operator.opcodeIndex]} keeps its state from one request to the next: convert the "
                    "recurrent layer unrolled (unroll=True), or import the .keras file or SavedModel it was made from"
                )
                return
    if found := sorted(used & _RANDOM_OPERATORS):
        yield f"it draws random numbers ({', '.join(found)}): export it with training=False"


def _bad_weights(model: Any) -> Iterator[str]:
    types = enum_names("TensorType")
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            name, data = (tensor.name or b"").decode(errors="replace"), model.buffers[tensor.buffer].data
            dtype = _FLOATS.get(types[tensor.type])
            if dtype and data is not None and np.isnan(np.max(_values(data, dtype), initial=0)):
                yield f"its weights {name!r} hold NaN: train it again, or restore weights from before they diverged"
                return
            scales = tensor.quantization.scale if tensor.quantization is not None else None
            if scales is not None and not np.isfinite(scales).all():
                yield f"the scales of its tensor {name!r} are not finite: quantize it again with finite rows"
                return


def _values(data: Any, dtype: Any) -> NDArray[Any]:
    content = np.ascontiguousarray(data, np.uint8)
    return np.frombuffer(content, dtype, len(content) // np.dtype(dtype).itemsize)


def _normalization(model: Any) -> dict[str, dict[str, list[float]]]:
    """NormalizationOptions of TFLite's metadata, by the names of the first signature's inputs.

    The fields' numbers are those of metadata_schema.fbs: ModelMetadata.subgraph_metadata 3,
    SubGraphMetadata.input_tensor_metadata 2, TensorMetadata.process_units 4, ProcessUnit.options 0 and 1,
    NormalizationOptions.mean 0 and .std 1.
    """
    entries = [each for each in model.metadata or [] if each.name == _METADATA]
    if not entries or model.buffers[entries[0].buffer].data is None:
        return {}
    content = np.asarray(model.buffers[entries[0].buffer].data, np.uint8).tobytes()
    root = flatbuffers.table.Table(content, struct.unpack_from("<I", content)[0])
    graphs = list(_tables(root, 3))
    tensors = list(_tables(graphs[0], 2)) if graphs else []
    graph = model.subgraphs[0]
    names = {int(index): graph.tensors[index].name.decode() for index in graph.inputs}
    for definition in (model.signatureDefs or [])[:1]:
        names |= {int(each.tensorIndex): each.name.decode() for each in definition.inputs}
    found = {}
    for index, tensor in zip(graph.inputs, tensors, strict=False):
        for unit in _tables(tensor, 4):
            if _scalar(unit, 0) == _NORMALIZATION and (options := _table(unit, 1)) is not None:
                found[names[int(index)]] = {"mean": _floats(options, 0), "std": _floats(options, 1)}
    return found


def _offset(table: Any, field: int) -> int:
    return int(table.Offset(4 + 2 * field))


def _tables(table: Any, field: int) -> Iterator[Any]:
    offset = _offset(table, field)
    for index in range(table.VectorLen(offset) if offset else 0):
        start = table.Vector(offset) + 4 * index
        yield flatbuffers.table.Table(table.Bytes, table.Indirect(start))


def _table(table: Any, field: int) -> Any:
    offset = _offset(table, field)
    return flatbuffers.table.Table(table.Bytes, table.Indirect(table.Pos + offset)) if offset else None


def _scalar(table: Any, field: int) -> int:
    offset = _offset(table, field)
    return int(table.Get(number_types.Uint8Flags, table.Pos + offset)) if offset else 0


def _floats(table: Any, field: int) -> list[float]:
    offset = _offset(table, field)
    values = table.GetVectorAsNumpy(number_types.Float32Flags, offset) if offset else np.zeros(0, np.float32)
    return [float(value) for value in values]
