"""Rows of values that need not be in memory: looked up by number, read from their file when they are asked for.

What is done to rows (some of them taken, another shape, another scale) is only noted, and done to those that are read.
An array in memory can stand at the root as well: to who uses them, rows look the same.
"""

from __future__ import annotations

import os
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
_CROWDING = 8  # rows as they were found, as float32, as TensorFlow's, and what the splits take: a build has them often


class Rows(Protocol):
    """Rows of values, (rows, …): an array, or `StoredRows`."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of rows, then the shape of one."""

    @property
    def dtype(self) -> Any:
        """Of the values."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any:
        """The rows of a slice, or those that an array of numbers names, as an array."""


class StoredRows:
    """Rows that are read when they are indexed.

    Attributes:
        shape: number of rows, then the shape of one.
        dtype: of the values.
        failure: what the last attempt to read failed with, for who had TensorFlow do it.
    """

    def __init__(self, shape: tuple[int, ...], dtype: Any, read: Read) -> None:
        self.shape = shape
        self.dtype = np.dtype(dtype)
        self.failure: Exception | None = None
        self._read = read

    @classmethod
    def of(cls, array: NDArray[Any]) -> StoredRows:
        """Rows that are in memory already."""
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
        """The rows as a function of each, of whatever rows it gets at once, makes them."""
        return StoredRows(self.shape, dtype, lambda wanted: change(self._read(wanted)))


def chunks(rows: Rows) -> Iterator[NDArray[Any]]:
    """All rows, a few megabytes at a time; the same parts wherever the rows lie."""
    row_bytes = 8 * max(1, int(np.prod(rows.shape[1:])))
    size = max(1, _CHUNK_BYTES // row_bytes)
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def file_rows(descriptor: int, offset: int, shape: tuple[int, ...], dtype: Any, name: str) -> StoredRows:
    """Rows that lie in a file one after the other.

    They are read, not mapped: what is mapped counts as this process's memory once it was looked at.

    Args:
        descriptor: of the open file; closed when the rows are no longer used.
        offset: bytes before the first row.
        shape: number of rows, then the shape of one.
        dtype: of the values.
        name: of the file, for messages.

    Raises:
        DataError: the file is shorter than its rows.
    """
    row_bytes = int(np.prod(shape[1:])) * np.dtype(dtype).itemsize
    owner = _Descriptor(descriptor)
    if os.fstat(descriptor).st_size < offset + shape[0] * row_bytes:
        raise DataError(f"{name} is cut short: {shape[0]} rows do not fit into it")

    def read(wanted: Indices) -> NDArray[Any]:
        found = np.empty((len(wanted), *shape[1:]), dtype)
        if not found.nbytes:
            return found
        into = found.data.cast("B")
        # Neighbours are read together: most of those who ask go through the rows in order.
        starts = np.concatenate([[0], np.flatnonzero(np.diff(wanted) != 1) + 1])
        for start, stop in zip(starts, [*starts[1:], len(wanted)], strict=True):
            position = offset + int(wanted[start]) * row_bytes
            _read_into(owner.number, into[start * row_bytes : stop * row_bytes], position, name)
        return found

    return StoredRows(shape, dtype, read)


class _Descriptor:
    """Owns the descriptor of an open file."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number)


def _read_into(descriptor: int, into: memoryview, position: int, name: str) -> None:
    while into:
        part = os.pread(descriptor, len(into), position)
        if not part:
            raise DataError(f"{name} became shorter while it was read")
        into[: len(part)] = part
        into, position = into[len(part) :], position + len(part)


def open_descriptor(path: Path) -> int:
    """Open a file for `file_rows`."""
    return os.open(path, os.O_RDONLY)


def needs_streaming(num_bytes: int) -> bool:
    """Whether so many bytes of float32 rows are too much for this machine; they are there several times over."""
    return num_bytes > _memory_bytes() // _CROWDING


def _memory_bytes() -> int:
    """What this machine, or the container it is in, has."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except OSError:
        return machine
    return min(machine, int(limit)) if limit.isdecimal() else machine


@dataclass(frozen=True)
class Split:
    """Rows of a data set: `x[i]` is what `y[i]` is to be predicted from."""

    x: Rows
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: Indices) -> Split:
        """Some of the rows, in the order of `indices`; those on disk stay there."""
        rows = self.x.take(indices) if isinstance(self.x, StoredRows) else self.x[indices]
        return Split(rows, self.y[indices])


@dataclass(frozen=True)
class Source:
    """A data set as it was found; a split that it does not have is None.

    Attributes:
        train: rows that say nothing of themselves are for training.
        validation: rows to watch training with.
        test: rows for evaluation alone.
        streamed: rows stay on disk, in all that is made of them.
    """

    train: Split
    validation: Split | None
    test: Split | None
    streamed: bool = False

    def map(self, change: Callable[[Split], Split]) -> Source:
        """The same change made to every split."""
        return Source(
            change(self.train),
            change(self.validation) if self.validation is not None else None,
            change(self.test) if self.test is not None else None,
            self.streamed,
        )
