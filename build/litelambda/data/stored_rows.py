"""Rows that need not be in memory: they are read from their file when they are indexed.

Operations on rows (a selection, another shape, another scale) are lazy: they are applied to the rows that are read. An
array in memory can be the source too, so that callers handle one kind of rows.
"""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError

Indices = NDArray[np.intp]
Read = Callable[[Indices], NDArray[Any]]

_CHUNK_BYTES = 1 << 24  # of float64 values, in one pass over all rows
_COPIES = 8  # of the rows during a build: raw, as float32, as TensorFlow tensors, and in the splits


class Rows(Protocol):
    """Rows of values, (rows, …): an array, or `StoredRows`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of a row."""

    @property
    def dtype(self) -> Any:
        """Type of the values."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any:
        """The rows of a slice, or of an array of indices, as an array."""


class StoredRows:
    """Rows that are read when they are indexed.

    Attributes:
        shape: number of rows, then the shape of a row.
        dtype: type of the values.
        failure: the last error of reading, which TensorFlow hides from its caller.

    Example:
        >>> rows = StoredRows.of(np.arange(6).reshape(3, 2)).map(lambda part: part * 10, np.int64)
        >>> rows.take(np.array([2, 0]))[:].tolist()
        [[40, 50], [0, 10]]
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Read) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.failure: Exception | None = None
        self._read = read

    @classmethod
    def of(cls, array: NDArray[Any]) -> StoredRows:
        """Rows of an array in memory."""
        return cls(array.shape, array.dtype, array.__getitem__)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: slice | Indices, /) -> NDArray[Any]:
        numbers = np.arange(*index.indices(len(self))) if isinstance(index, slice) else np.asarray(index, np.intp)
        try:
            return self._read(numbers)
        except Exception as error:
            self.failure = error
            raise

    def take(self, indices: Indices) -> StoredRows:
        """Some of the rows, in the order of `indices`."""
        return StoredRows((len(indices), *self.shape[1:]), self.dtype, lambda wanted: self._read(indices[wanted]))

    def with_row_shape(self, shape: tuple[int, ...]) -> StoredRows:
        """The same values in rows of another shape."""
        return StoredRows(
            (len(self), *shape), self.dtype, lambda wanted: self._read(wanted).reshape(len(wanted), *shape)
        )

    def map(self, change: Callable[[NDArray[Any]], NDArray[Any]], dtype: Any) -> StoredRows:
        """The rows after a function that maps any batch of rows to as many rows of the same shape."""
        return StoredRows(self.shape, dtype, lambda wanted: change(self._read(wanted)))


def chunks(rows: Rows) -> Iterator[NDArray[Any]]:
    """All rows, a few megabytes at a time; in the same parts in memory and on disk."""
    row_bytes = 8 * max(1, int(np.prod(rows.shape[1:])))
    size = max(1, _CHUNK_BYTES // row_bytes)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def file_rows(descriptor: int, offset: int, shape: tuple[int, ...], dtype: Any, name: str) -> StoredRows:
    """Rows that are contiguous in a file.

    They are read, not mapped: mapped pages count as this process's memory once they were read.

    Args:
        descriptor: of the open file; closed when the rows are no longer used.
        offset: bytes before the first row.
        shape: number of rows, then the shape of a row.
        dtype: type of the values.
        name: of the file, for messages.

    Raises:
        DataError: the file is shorter than its rows.
    """
    row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    owner = _Descriptor(descriptor)
    if os.fstat(descriptor).st_size < offset + shape[0] * row_bytes:
        raise DataError(f"{name} is truncated: it is too short for {shape[0]} rows")

    def read(wanted: Indices) -> NDArray[Any]:
        found = np.empty((len(wanted), *shape[1:]), dtype)
        if not found.nbytes:
            return found
        into = found.data.cast("B")
        # Consecutive rows are read together: most callers read rows in order.
        starts = np.concatenate([[0], np.flatnonzero(np.diff(wanted) != 1) + 1])
        for start, stop in zip(starts, [*starts[1:], len(wanted)], strict=True):
            position = offset + int(wanted[start]) * row_bytes
            _read_into(owner.number, into[start * row_bytes : stop * row_bytes], position, name)
        return found

    return StoredRows(shape, dtype, read)


def in_file(rows: StoredRows, name: str = "the temporary file of prepared rows") -> StoredRows:
    """The same rows in a temporary file, so that what makes them is done once."""
    with tempfile.TemporaryFile() as file:  # deleted with its last reader
        for part in chunks(rows):
            file.write(np.ascontiguousarray(part).data)
        file.flush()
        return file_rows(os.dup(file.fileno()), 0, rows.shape, rows.dtype, name)


class _Descriptor:
    """Owns the descriptor of an open file."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number)


def _read_into(descriptor: int, into: memoryview, position: int, name: str) -> None:
    while into:
        part = os.pread(descriptor, len(into), position)
        if not part:
            raise DataError(f"{name} was truncated while it was read")
        into[: len(part)] = part
        into, position = into[len(part) :], position + len(part)


def open_descriptor(path: Path) -> int:
    """Open a file for `file_rows`."""
    return os.open(path, os.O_RDONLY)


def needs_streaming(num_bytes: int) -> bool:
    """Whether so many bytes of float32 rows, of which a build has several copies, are too much for this machine."""
    return num_bytes > _memory_bytes() // _COPIES


def _memory_bytes() -> int:
    """The memory of this machine, or the limit of its container."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdecimal() else machine


@dataclass(frozen=True)
class Split:
    """Rows of a data set and their labels: `y[i]` is predicted from `x[i]`."""

    x: Rows
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: Indices) -> Split:
        """Some of the rows, in the order of `indices`; rows on disk stay there."""
        rows = self.x.take(indices) if isinstance(self.x, StoredRows) else self.x[indices]
        return Split(rows, self.y[indices])


@dataclass(frozen=True)
class RawDataset:
    """A data set as it was read; a split that it does not have is None.

    Attributes:
        train: rows of the training split, or all rows of a data set without splits.
        validation: rows to validate on during training.
        test: rows for evaluation only.
        streamed: whether rows stay on disk.
        raw: the raw values of the rows, where a row is only its number there until it is prepared.
        notes: what people should know of how it was read.
    """

    train: Split
    validation: Split | None
    test: Split | None
    streamed: bool = False
    raw: Any = None
    notes: tuple[str, ...] = ()

    def map(self, change: Callable[[Split], Split]) -> RawDataset:
        """Apply a function to every split."""
        return RawDataset(
            change(self.train),
            change(self.validation) if self.validation is not None else None,
            change(self.test) if self.test is not None else None,
            self.streamed,
            self.raw,
            self.notes,
        )
