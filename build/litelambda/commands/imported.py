"""A model from elsewhere on its way into a store: what reading it gives, and what is asked of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from litelambda.artifact.flatbuffer import (
    FlatbufferSignature,
    FlatbufferTensor,
)
from litelambda.common.errors import ConversionError
from litelambda.evaluation.loaded_sources import Described
from litelambda.evaluation.representative_rows import Rows
from litelambda_serving.tensor import DTYPES

_STRINGS = (b"", b"a", b"text", "gr\u00fc\u00df".encode(), b"\xff\x00", b"longer " * 40)
VERIFIED_ROWS = 32


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere as a flatbuffer that answers as its source does.

    Attributes:
        artifact: the flatbuffer to publish.
        float_bytes: size of the float flatbuffer.
        signature: its entry point.
        scheme: int8 or float32.
        io: dtype at the edges.
        float_operators: operators that compute in float.
        note: why they do, or None where none does.
        metrics: the manifest's: what was compared with what, and how far apart it is.
        rows: rows to verify it with, as it takes them.
        preprocessing: the manifest's, as the file itself tells.
        warnings: what a user should know.
        representative: rows of data by input, where some were given.
    """

    artifact: bytes
    float_bytes: int
    signature: FlatbufferSignature
    scheme: str
    io: str
    float_operators: list[str]
    note: str | None
    metrics: dict[str, Any]
    rows: Rows
    preprocessing: dict[str, Any]
    warnings: tuple[str, ...] = ()
    representative: Rows | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's `quantization`."""
        return {"scheme": self.scheme, "io": self.io, "float_ops": self.float_operators, "note": self.note}


def check_tensors(model: FlatbufferSignature | Described) -> None:
    """Refuse types and shapes that no request can have.

    Raises:
        ConversionError: the model has one.
    """
    tensors: list[Any] = [*model.inputs, *(model.outputs if isinstance(model, FlatbufferSignature) else ())]
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            raise ConversionError(
                f"{tensor.name!r} is of the type {tensor.dtype}, which has no place in a request: use float32 when "
                "exporting the model"
            )
        if any(size is None or size < 0 for size in tensor.shape[1:]):
            raise ConversionError(
                f"{tensor.name!r} has the shape {list(tensor.shape)}: only the first size, the batch, may be open. "
                "Use static sizes for the others when exporting the model"
            )


def random_rows(inputs: tuple[FlatbufferTensor, ...], count: int) -> Rows:
    """Seeded rows in each input's own dtype: reals in [0, 1), small integers, strings of several kinds and lengths."""
    noise = np.random.default_rng(0)
    rows: Rows = {}
    for tensor in inputs:
        shape = (count, *tensor.shape[1:]) if tensor.shape else (count,)
        if tensor.dtype == "string":
            rows[tensor.name] = noise.choice(np.array(_STRINGS, object), shape)
            continue
        dtype = np.dtype(tensor.dtype)
        values = noise.random(shape, dtype=np.float32)
        rows[tensor.name] = values.astype(dtype) if dtype.kind == "f" else (values * 2).astype(dtype)
    return rows
