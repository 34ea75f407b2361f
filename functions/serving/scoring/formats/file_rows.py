"""Rows of an array in a local file, on their way to the model: uncopied if that can be."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.litert import ALIGNMENT, READ_BEYOND
from serving.scoring.formats.values import NotFiniteError, bytes_of, first_non_finite, is_surely_finite
from serving.scoring.mapping import MappedBytes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from serving.scoring.files import OpenFile
    from serving.scoring.formats.base import Array

__all__ = ["NOT_FINITE", "FileColumn", "FileRows", "Pace", "pays_to_map"]

NOT_FINITE = "holds NaN or an infinity, which a quantized model cannot represent"
_CHUNK_SECONDS = 0.5
_LEAST_MAPPED_BYTES = 128 * 1024  # of a batch: to copy less takes no more time than to tell the runtime where it is


class Pace:
    """How large chunks are: each twice as large as the one before, as long as they take little time.

    Attributes:
        rows: of the next chunk.
        is_fast: whether the last chunk took little time, and each of its batches less.
    """

    def __init__(self, rows: int, largest: int) -> None:
        self.rows = rows
        self.is_fast = False
        self._largest = largest

    def note(self, rows: int, seconds: float) -> None:
        """Learn how long a chunk took."""
        self.is_fast = seconds < _CHUNK_SECONDS
        if rows == self.rows and seconds < _CHUNK_SECONDS / 2:
            self.rows = min(2 * rows, self._largest)


@dataclass
class FileRows:
    """A chunk of a local file's rows.

    Attributes:
        file: which.
        start: the first row's place in it.
        dtype: of the values.
        shape: number of rows, and shape of one.
        piece_rows: rows that are read at a time, where they are not read by the batch.
        pace: to be told how long they took.
        may_map: whether they may be mapped; see `pays_to_map`.
        straight: whether they may go from the file to the model unseen, if they need no conversion.
    """

    file: OpenFile
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    piece_rows: int
    pace: Pace
    may_map: bool
    straight: bool = True

    def mapped(self) -> AbstractContextManager[MappedBytes | None]:
        """The rows where the system has them, if it may be.

        The system takes a lease away from who does not give it back for 45 s: only once batches are known to take far
        less is anything mapped. What slower ones would save is nothing beside the time that they take.

        Raises:
            InputReplacedError: the file is another version.
        """
        if self.may_map and self.pace.is_fast:
            return MappedBytes(self.file.again(), self.start, self.start + self.nbytes + READ_BEYOND)
        self.file.check()
        return nullcontext()

    @property
    def count(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def nbytes(self) -> int:
        """Bytes of all rows."""
        return prod(self.shape) * self.dtype.itemsize

    def __iter__(self) -> Iterator[list[Array]]:
        """The rows as arrays, some at a time."""
        self.file.check()
        started = perf_counter()
        for first in range(0, self.count, self.piece_rows):
            rows = np.empty((min(self.piece_rows, self.count - first), *self.shape[1:]), self.dtype)
            self.file.reader(bytes_of(rows), self.start)(first * rows[0].nbytes)
            yield [rows]
        self.pace.note(self.count, perf_counter() - started)


def pays_to_map(batch_bytes: int, workers: int) -> bool:
    """Whether mapping a file saves time: not for small batches, nor for threads, which get in each other's way."""
    return batch_bytes >= _LEAST_MAPPED_BYTES and workers == 1


class FileColumn:
    """See `batching.Column`: rows of a file where the system has them, or else read into the model's own place.

    They are looked at just before the model reads them, while they are in the core's cache.
    """

    def __init__(self, rows: FileRows, mapped: MappedBytes | None, *, is_checked: bool) -> None:
        self._rows, self._mapped, self._is_checked = rows, mapped, is_checked

    def loader(self, target: memoryview, bind: Callable[[int], None] | None = None) -> Callable[[int], None]:
        """See `Column.loader`; what it returns raises NotFiniteError for rows that hold NaN or an infinity."""
        copy = self._copier(target)
        mapped, base = self._mapped, self._rows.start
        # The system maps whole pages: what is aligned in the file is aligned in memory.
        size, is_checked = len(target), self._is_checked
        if bind is None or size < _LEAST_MAPPED_BYTES or mapped is None or not mapped.address or base % ALIGNMENT:
            return copy
        find = mapped.find
        all_bytes = (ctypes.c_ubyte * self._rows.nbytes).from_address(mapped.address + base)
        values = np.frombuffer(memoryview(all_bytes), self._rows.dtype)
        itemsize, count = values.itemsize, size // values.itemsize

        def load(offset: int) -> None:
            place = 0 if offset % ALIGNMENT else find(base + offset, size, READ_BEYOND)
            if not place:
                bind(0)
                copy(offset)
                return
            if is_checked:
                first = offset // itemsize
                _check(values[first : first + count])
            bind(place)

        return load

    def _copier(self, target: memoryview) -> Callable[[int], None]:
        read = self._rows.file.reader(target, self._rows.start)
        if not self._is_checked:
            return read
        values = np.frombuffer(target, self._rows.dtype)

        def load(offset: int) -> None:
            read(offset)
            _check(values)

        return load


def _check(values: Array) -> None:
    if not is_surely_finite(values) and first_non_finite(values) is not None:
        raise NotFiniteError(NOT_FINITE)
