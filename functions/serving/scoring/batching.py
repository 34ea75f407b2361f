"""The batch size that runs fastest, found by measuring it on the rows themselves.

Only sizes that the manifest's `batching` lists were proven safe: no other is ever tried.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from typing_extensions import Buffer

    from serving.litert import CompiledModel, Signature
    from serving.tensor import TensorSpec

__all__ = ["BatchRunner", "Column", "row_bytes", "row_shape"]

_SMALLEST_BATCH = 8  # between one row and this, a resize costs more than it saves
# Timed runs of each size, without the one that pays for the resize: so many that noise does not choose.
_MIN_TRIALS, _MAX_TRIALS = 3, 32
_TRIAL_SECONDS = 0.003
_MAX_RESIZES = 5  # that may be spent on getting those
_WORSE = 1.25  # how much slower than the best a size must be for larger ones not to be tried
_AS_GOOD = 1.05  # of sizes that differ by no more, the smallest: its rows stay in the core's cache
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


class Column(Protocol):
    """The rows of one input: bytes in memory, or bytes in a file that are read when they are needed."""

    def __getitem__(self, span: slice, /) -> Buffer | Callable[[memoryview], None]:
        """Some of the rows, by their bytes: themselves, or a function that writes them to a buffer."""


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
        self._trials: list[float] = []
        self._resizes = 0
        self._seconds: dict[int, float] = {}  # of a run, by batch size
        self._current = 0
        self.best = 0

    def run(self, columns: Sequence[Column], count: int) -> list[bytes]:
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
        while self._untried and self._untried[0] <= count - start:
            parts.append(self._try(columns, start))
            start += self._current
        size = self.best or 1
        while count - start >= size:
            parts.append(self._run(columns, start, size))
            start += size
        if start < count:
            parts.extend(self._run_rest(columns, start, count - start))
        return parts[0] if len(parts) == 1 else [b"".join(column) for column in zip(*parts, strict=True)]

    def _try(self, columns: Sequence[Column], start: int) -> list[bytes]:
        """Run the smallest size that is not judged yet, and judge it once it was timed often enough."""
        size = self._untried[0]
        resized = self._current != size
        started = time.perf_counter()
        outputs = self._run(columns, start, size)
        seconds = time.perf_counter() - started
        if resized:
            self._resizes += 1
        else:
            self._trials.append(seconds)
        if self._is_judged():
            self._seconds[size] = min(self._trials, default=seconds)
            self._untried.pop(0)
            self._trials, self._resizes = [], 0
            per_row = {each: total / each for each, total in self._seconds.items()}
            fastest = min(per_row.values())
            self.best = min(each for each, seconds in per_row.items() if seconds <= _AS_GOOD * fastest)
            if per_row[size] > _WORSE * fastest:
                self._untried.clear()
        return outputs

    def _is_judged(self) -> bool:
        """Whether the size on trial was timed often enough, or too many resizes came in between."""
        count, seconds = len(self._trials), sum(self._trials)
        timed = count >= _MIN_TRIALS and (seconds >= _TRIAL_SECONDS or count >= _MAX_TRIALS)
        return timed or self._resizes >= _MAX_RESIZES

    def _run_rest(self, columns: Sequence[Column], start: int, count: int) -> list[list[bytes]]:
        """Run fewer rows than a batch: filled up with zeros to the size that is ready, or one by one."""
        size = self._current if self._current > count else self.best
        filled, single = self._seconds.get(size, 0.0), self._seconds.get(1, 0.0)
        if size > count and filled and filled <= count * single + 2 * _RESIZE_SECONDS:
            rows = [
                memoryview(_filled(data, count * width, size * width))
                for data, width in zip(self._slices(columns, start, count), self._input_bytes, strict=True)
            ]
            widths = [row_bytes(spec) for spec in self.signature.outputs]
            outputs = zip(self._run(rows, 0, size), widths, strict=True)
            return [[data[: count * width] for data, width in outputs]]
        return [self._run(columns, row, 1) for row in range(start, start + count)]

    def _run(self, columns: Sequence[Column], start: int, size: int) -> list[bytes]:
        outputs = self._model.run(self.signature.key, self._slices(columns, start, size), size)
        self._current = size
        return outputs

    def _slices(self, columns: Sequence[Column], start: int, count: int) -> list[Buffer | Callable[[memoryview], None]]:
        widths = self._input_bytes
        if len(widths) == 1:  # mostly, and sooner done
            return [columns[0][start * widths[0] : (start + count) * widths[0]]]
        return [column[start * width : (start + count) * width] for column, width in zip(columns, widths, strict=True)]


def _filled(data: Buffer | Callable[[memoryview], None], used: int, size: int) -> bytearray:
    """Bytes that are followed by zeros up to a size."""
    filled = bytearray(size)
    view = memoryview(filled)[:used]
    if callable(data):
        data(view)
    else:
        view[:] = memoryview(data)
    return filled
