"""Rows as the model reads them: per input a column, the bytes of its rows one after the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from litelambda_serving.tensor import TensorSpec

    Column = Callable[[memoryview, int], None]
    """The rows of one input: fills a buffer with their bytes from an offset on."""

__all__ = ["Column", "column_of", "row_bytes", "row_shape"]


def row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one row: without the batch dimension, chosen by the caller or fixed to one."""
    return spec.shape[1:] if spec.batched or (spec.shape and spec.shape[0] == 1) else spec.shape


def row_bytes(spec: TensorSpec) -> int:
    """Bytes of one row."""
    size = spec.dtype.itemsize
    for dimension in row_shape(spec):
        size *= dimension
    return size


def column_of(data: Buffer) -> Column:
    """Rows that are in memory as a column."""
    source = memoryview(data)

    def fill(target: memoryview, offset: int) -> None:
        target[:] = source[offset : offset + len(target)]

    return fill
