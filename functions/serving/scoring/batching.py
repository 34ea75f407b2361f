"""The batch size that runs fastest, found by measuring it on the rows themselves.

Only sizes that the manifest's `batching` lists were proven safe: no other is ever tried.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from serving.litert import CompiledModel, Signature
    from serving.tensor import TensorSpec

__all__ = ["BatchRunner", "row_bytes", "row_shape"]

_SMALLEST_BATCH = 8  # between one row and this, a resize costs more than it saves
_TRIALS = 3  # of each size; the first pays for the resize and is not counted
_WORSE = 1.10  # how much slower than the best a size must be for larger ones not to be tried
_RESIZE_SECONDS = 0.0004
_MAX_BATCH_BYTES = 64 * 1024 * 1024


def row_shape(spec: TensorSpec) -> tuple[int, ...]:
    """The shape of one row: without the batch dimension, chosen by the caller or fixed to one."""
    return spec.shape[1:] if spec.batched or (spec.shape and spec.shape[0] == 1) else spec.shape


def row_bytes(spec: TensorSpec) -> int:
    """Bytes of one row."""
    size = spec.dtype.itemsize
    for dimension in row_shape(spec):
        size *= dimension
    return size


class BatchRunner:
    """Runs any number of rows through one signature.

    Attributes:
        signature: the model's.
        best: the batch size that is in use; 0 before any was measured.
    """

    def __init__(self, model: CompiledModel, signature_key: str, sizes: Sequence[int]) -> None:
        self._model = model
        self.signature: Signature = model.signatures[signature_key]
        inputs = self.signature.inputs
        self._input_bytes = [row_bytes(spec) for spec in inputs]
        row = sum(self._input_bytes) + sum(row_bytes(spec) for spec in self.signature.outputs)
        resizable = all(spec.batched for spec in (*inputs, *self.signature.outputs))
        usable = [size for size in sizes if size >= _SMALLEST_BATCH and size * row <= _MAX_BATCH_BYTES]
        self._untried = [1, *usable] if resizable else [1]
        self._seconds: dict[int, float] = {}  # per run, by batch size
        self._current = 0
        self.best = 0

    def run(self, columns: Sequence[memoryview], count: int) -> list[bytes]:
        """Run `count` rows.

        Args:
            columns: per input, the rows' bytes one after the other.
            count: how many rows.

        Returns:
            Per output, the rows' bytes one after the other.

        Raises:
            LiteRtError: the runtime failed.
        """
        parts: list[list[bytes]] = []
        start = 0
        while self._untried and start < count:
            start = self._try_next(columns, start, count, parts)
        size = self.best or 1
        while count - start >= size:
            parts.append(self._run(columns, start, size))
            start += size
        if start < count:
            parts.extend(self._run_rest(columns, start, count - start))
        return parts[0] if len(parts) == 1 else [b"".join(column) for column in zip(*parts, strict=True)]

    def _try_next(self, columns: Sequence[memoryview], start: int, count: int, parts: list[list[bytes]]) -> int:
        """Measure the smallest size that was not tried yet, if there are rows enough for it; return the next row."""
        size = self._untried[0]
        if size * _TRIALS > count - start:
            # Too few rows for a fair trial: whatever is best so far goes on, and larger sizes wait for more rows.
            parts.extend(self._run_few(columns, start, count - start))
            return count
        times = []
        for _trial in range(_TRIALS):
            started = time.perf_counter()
            parts.append(self._run(columns, start, size))
            times.append(time.perf_counter() - started)
            start += size
        self._untried.pop(0)
        self._seconds[size] = min(times[1:])
        self.best = min(self._seconds, key=lambda each: self._seconds[each] / each)
        if self._seconds[size] / size > _WORSE * self._seconds[self.best] / self.best:
            self._untried.clear()
        return start

    def _run_few(self, columns: Sequence[memoryview], start: int, count: int) -> list[list[bytes]]:
        if count >= _SMALLEST_BATCH and len(self._untried) > 0:
            known = [size for size in (*self._seconds, *self._untried) if size <= count]
            size = max(known, default=1)
            parts = []
            while count >= size:
                parts.append(self._run(columns, start, size))
                start, count = start + size, count - size
            return parts + (self._run_rest(columns, start, count) if count else [])
        return self._run_rest(columns, start, count)

    def _run_rest(self, columns: Sequence[memoryview], start: int, count: int) -> list[list[bytes]]:
        """Run fewer rows than a batch: filled up with zeros to a size that is ready, or at sizes that fit exactly."""
        size = self._current if self._current > count else self.best
        filled = self._seconds.get(size, 0.0)
        single = self._seconds.get(1, 0.0)
        if size > count and filled and filled <= count * single + 2 * _RESIZE_SECONDS:
            padding = [bytes((size - count) * width) for width in self._input_bytes]
            views = self._slices(columns, start, count)
            rows = [memoryview(bytes(view) + zeros) for view, zeros in zip(views, padding, strict=True)]
            outputs = self._run(rows, 0, size)
            widths = [row_bytes(spec) for spec in self.signature.outputs]
            return [[data[: count * width] for data, width in zip(outputs, widths, strict=True)]]
        return [self._run(columns, row, 1) for row in range(start, start + count)]

    def _run(self, columns: Sequence[memoryview], start: int, size: int) -> list[bytes]:
        self._current = size
        return self._model.run(self.signature.key, self._slices(columns, start, size), size)

    def _slices(self, columns: Sequence[memoryview], start: int, count: int) -> list[memoryview]:
        return [
            column[start * width : (start + count) * width]
            for column, width in zip(columns, self._input_bytes, strict=True)
        ]
