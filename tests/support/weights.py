"""The integer weights of a flatbuffer, as the runtime reads them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import parse


def weight_codes(artifact: bytes | Path) -> list[NDArray[np.int8]]:
    """The int8 and int4 codes of every weight tensor of rank two and more."""
    model, types = parse(artifact), schema.TensorType
    found = []
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            if data is not None and len(tensor.shape) > 1 and tensor.type in (types.INT8, types.INT4):
                codes = np.asarray(data).astype(np.int8)
                found.append(_unpack(codes, tensor.shape) if tensor.type == types.INT4 else codes)
    return found


def weight_sparsity(artifact: bytes | Path) -> float:
    """The share of zeros among all integer weights of rank two and more."""
    codes = weight_codes(artifact)
    total = sum(len(each) for each in codes)
    return sum(int(np.count_nonzero(each == 0)) for each in codes) / total if total else 0.0


def _unpack(packed: NDArray[np.int8], shape: Sequence[int]) -> NDArray[np.int8]:
    """Unpack int4 codes, two per byte, the first in the low half."""
    codes: NDArray[np.int8] = np.stack([np.left_shift(packed, 4) >> 4, packed >> 4], axis=1).ravel()
    return codes[: int(np.prod(shape))]
