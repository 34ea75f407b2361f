"""Breaks flatbuffers on purpose, as a faulty rewrite or converter would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema


def edited(data: bytes, change: Callable[[Any], None]) -> bytes:
    """The flatbuffer after `change` was done to its objects."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    change(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def with_weights(data: bytes, change: Callable[[Any], Any], dtype: Any = np.float32, min_rank: int = 2) -> bytes:
    """The first constant of that dtype and rank, changed; matrices unless the rank is given."""
    wanted = {np.float32: schema.TensorType.FLOAT32, np.int8: schema.TensorType.INT8}[dtype]

    def edit(model: Any) -> None:
        for tensor in model.subgraphs[0].tensors:
            buffer = model.buffers[tensor.buffer]
            if tensor.type == wanted and buffer.data is not None and len(tensor.shape) >= min_rank:
                values = change(np.frombuffer(buffer.data.tobytes(), dtype)).astype(dtype)
                buffer.data = np.frombuffer(values.tobytes(), np.uint8)
                return
        raise AssertionError("no such weights")

    return edited(data, edit)


def with_scaled_kernel(data: bytes) -> bytes:
    """The first float matrix times 1.01."""
    return with_weights(data, lambda values: values * 1.01)


def with_nan_weight(data: bytes) -> bytes:
    """One NaN in the first float constant."""
    return with_weights(data, lambda values: np.where(np.arange(values.size) == 0, np.nan, values), min_rank=0)


def with_zero_codes(data: bytes) -> bytes:
    """The first int8 matrix is zero."""
    return with_weights(data, np.zeros_like, np.int8)


def with_swapped_outputs(data: bytes) -> bytes:
    """The first two outputs of the first signature under each other's names."""

    def change(model: Any) -> None:
        first, second = model.signatureDefs[0].outputs[:2]
        first.name, second.name = second.name, first.name

    return edited(data, change)


def without_an_output(data: bytes) -> bytes:
    """The last output of the first signature is gone."""

    def change(model: Any) -> None:
        model.signatureDefs[0].outputs.pop()
        model.subgraphs[0].outputs = model.subgraphs[0].outputs[:-1]

    return edited(data, change)
