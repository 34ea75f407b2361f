"""NumPy's .npz: a zip of .npy arrays, one for each input, under the inputs' names.

All arrays are streamed side by side. A whole .npz in gzip must be unpacked first, since a zip begins at its end: that
takes room in the temporary folder, not in memory.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from contextlib import contextmanager
from math import prod
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.errors import ServingError
from litelambda_serving.objects import objects_for
from litelambda_serving.scoring.byte_stream import blocks, inflate
from litelambda_serving.scoring.errors import JobError, SchemaError, UnreadableInputError
from litelambda_serving.scoring.formats.base import Chunk, Reader, RowSchema
from litelambda_serving.scoring.formats.npy import CHUNK_BYTES, EXPLAINED_ROWS, ArrayDecoder, rows_per_chunk
from litelambda_serving.scoring.formats.npy_header import MAX_HEADER_BYTES, check_end, parse_header
from litelambda_serving.scoring.formats.values import check_row_shape

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.formats.base import Decoder
    from litelambda_serving.scoring.job import Job

__all__ = ["NpzReader", "open_file"]

_WINDOW_BYTES = 1024 * 1024
_NUM_WINDOWS = 8
_MAX_SHOWN = 200  # characters of what is shown of the file


class _Member:
    """One array of the archive, read from its start to its end."""

    def __init__(self, archive: zipfile.ZipFile, name: str) -> None:
        self._stream: IO[bytes] = archive.open(name)
        head = self._stream.read(MAX_HEADER_BYTES)
        self.shape, self.dtype, header_bytes = parse_header(head)
        self._rest = head[header_bytes:]
        self.row_bytes = prod(self.shape[1:]) * self.dtype.itemsize
        check_end(archive.getinfo(name).file_size, header_bytes + self.shape[0] * self.row_bytes)

    def skip(self, rows: int) -> None:
        left = rows * self.row_bytes
        while left > 0:
            left -= len(self._read(min(left, _WINDOW_BYTES)))

    def rows(self, count: int) -> np.ndarray[Any, np.dtype[Any]]:
        data = self._read(count * self.row_bytes)
        return np.frombuffer(data, self.dtype).reshape(count, *self.shape[1:])

    def _read(self, size: int) -> bytes:
        data, self._rest = self._rest[:size], self._rest[size:]
        if len(data) < size:
            data += self._stream.read(size - len(data))
        if len(data) < size:
            raise UnreadableInputError("an array of the .npz is shorter than its header promises")
        return data


class NpzReader(Reader):
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, schema: RowSchema) -> None:
        if job.span:
            raise JobError(f"{job.input} is a zip: it cannot be split into ranges")
        self._schema = schema
        self._is_explained = job.explain is not None
        self._file = open_file(job, info)
        try:
            self._open(schema)
        except BaseException:
            self.close()
            raise
        self.decoder: Decoder = ArrayDecoder(schema)

    def _open(self, schema: RowSchema) -> None:
        with _damage_of("not a .npz archive"):
            self._archive = zipfile.ZipFile(self._file)
        self._names = _member_names(self._archive, schema)
        members = self._open_members()
        for member, spec in zip(members, schema.inputs, strict=True):
            check_row_shape(f"array {spec.name!r}", member.shape[1:], spec)
        counts = {member.shape[0] for member in members}
        if len(counts) > 1:
            raise SchemaError(f"the arrays have different numbers of rows: {sorted(counts)}")
        self._num_rows = counts.pop()
        self._row_bytes = sum(member.row_bytes for member in members)
        self.total_bytes = self._num_rows * self._row_bytes

    def close(self) -> None:
        """See `Reader.close`."""
        self._file.close()

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """See `Reader.chunks`."""
        row = position["row"] if position else 0
        size = rows_per_chunk(self._row_bytes, self._schema.batch_rows, CHUNK_BYTES)
        size = min(size, EXPLAINED_ROWS) if self._is_explained else size
        with _damage_of("the .npz is damaged"):
            members = self._open_members()
            for member in members:
                member.skip(row)
            while row < self._num_rows:
                count = min(size, self._num_rows - row)
                yield Chunk(
                    [[member.rows(count) for member in members]],
                    row,
                    {"row": row + count},
                    (row + count) * self._row_bytes,
                )
                row += count

    def _open_members(self) -> list[_Member]:
        with _damage_of("the .npz is damaged"):
            return [_Member(self._archive, name) for name in self._names]


@contextmanager
def _damage_of(what: str) -> Iterator[None]:
    """A damaged archive makes zipfile, and what unpacks its members, raise nearly anything."""
    try:
        yield
    except (ServingError, MemoryError):
        raise
    except Exception as error:
        raise UnreadableInputError(f"{what}: {type(error).__name__}: {str(error)[:_MAX_SHOWN]}") from error


def open_file(job: Job, info: ObjectInfo) -> IO[bytes]:
    """A job's input as a seekable file, gzip taken off."""
    if not job.input.lower().endswith(".gz"):
        return io.BufferedReader(_Ranged(info), _WINDOW_BYTES // 16)
    file = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the reader
    try:
        for piece in inflate(blocks(info, 0, info.size)):
            file.write(piece)
    except BaseException:
        file.close()
        raise
    file.seek(0)
    return file


def _member_names(archive: zipfile.ZipFile, schema: RowSchema) -> list[str]:
    names = {name.removesuffix(".npy"): name for name in archive.namelist()}
    wanted = [spec.name for spec in schema.inputs]
    if set(wanted) <= set(names):
        return [names[name] for name in wanted]
    if len(wanted) == 1 and len(names) == 1:
        return list(names.values())
    found = ", ".join(sorted(names))
    shown = found if len(found) <= _MAX_SHOWN else f"{found[:_MAX_SHOWN]}…"
    raise SchemaError(f"the .npz has the arrays {shown}; expected {', '.join(wanted)}")


class _Ranged(io.RawIOBase):
    """An object as a seekable file, through a few windows onto it: the archive's members are read in turn."""

    def __init__(self, info: ObjectInfo) -> None:
        self._info = info
        self._objects = objects_for(info.url)
        self._position = 0
        self._windows: dict[int, bytes] = {}

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.size}[whence]
        self._position = max(base + offset, 0)
        return self._position

    def readinto(self, target: Any) -> int:
        start, inside = divmod(self._position, _WINDOW_BYTES)
        data = self._window(start)[inside : inside + len(target)] if self._position < self._info.size else b""
        target[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _window(self, index: int) -> bytes:
        if index not in self._windows:
            if len(self._windows) >= _NUM_WINDOWS:
                del self._windows[next(iter(self._windows))]
            first = index * _WINDOW_BYTES
            self._windows[index] = self._objects.read(self._info, first, min(first + _WINDOW_BYTES, self._info.size))
        else:
            self._windows[index] = self._windows.pop(index)  # the least recently used is first
        return self._windows[index]
