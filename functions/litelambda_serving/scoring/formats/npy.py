"""NumPy's .npy: one array, its rows along the first axis, streamed without ever being whole in memory.

Out: an array of the same number of rows in the same order. A row that could not be scored is all NaN (zeros where the
output's dtype has none), and in errors.jsonl.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from time import perf_counter
from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.objects import objects_for
from litelambda_serving.objects.files import OpenFile
from litelambda_serving.scoring.byte_stream import blocks, inflate, skip
from litelambda_serving.scoring.columns import column_of, row_shape
from litelambda_serving.scoring.errors import JobError, SchemaError
from litelambda_serving.scoring.formats.base import BadRow, Chunk, DecodedRows, Reader, RowSchema, Writer
from litelambda_serving.scoring.formats.npy_header import MAX_HEADER_BYTES, check_end, parse_header
from litelambda_serving.scoring.formats.values import (
    NOT_FINITE,
    NotFiniteError,
    bytes_of,
    check_row_shape,
    first_non_finite,
    is_surely_finite,
    to_model,
    unusable_rows,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.columns import Column
    from litelambda_serving.scoring.formats.base import Array, Decoder
    from litelambda_serving.scoring.job import Job

__all__ = ["ArrayDecoder", "NpyReader", "NpyWriter", "rows_per_chunk"]

CHUNK_BYTES = 8 * 1024 * 1024
# Chunks of a local file cost no memory, and fewer of them less time. But a progress bar stands still for as long as one
# takes, and Ctrl-C is waited for: each is twice as large as the one before, as long as they take little time.
_FIRST_CHUNK_BYTES, _MAX_CHUNK_BYTES, _CHUNK_SECONDS = 1024 * 1024, 32 * 1024 * 1024, 0.25
_PIECE_BYTES = 256 * 1024  # stays in a core's cache
EXPLAINED_ROWS = 512  # of a chunk: each takes hundreds of runs, and a job stops between two chunks
_HEAD_BYTES = 128


def rows_per_chunk(bytes_per_row: int, batch_rows: int, chunk_bytes: int) -> int:
    """Rows of a chunk: about as many bytes as asked for, and whole batches."""
    return max(chunk_bytes // max(bytes_per_row, 1) // batch_rows, 1) * batch_rows


class NpyReader(Reader):
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, schema: RowSchema) -> None:
        if len(schema.inputs) != 1:
            names = ", ".join(spec.name for spec in schema.inputs)
            raise SchemaError(f"the model has the inputs {names}: send a .npz with an array for each")
        self._info = info
        self._gzip = job.input.lower().endswith(".gz")
        self._file: OpenFile | None = None
        shape, self._dtype, self._header_bytes = parse_header(self._head())
        check_row_shape("the array", shape[1:], schema.inputs[0])
        self._shape = shape[1:]
        self._row_bytes = prod(shape[1:]) * self._dtype.itemsize
        self._first, self._last = job.span or (0, shape[0])
        self._last = min(self._last, shape[0])
        if self._gzip and job.span:
            raise JobError(f"{job.input} is gzipped: it cannot be split into ranges")
        if not self._gzip:
            check_end(info.size, self._header_bytes + shape[0] * self._row_bytes)
        self._chunk_rows = rows_per_chunk(self._row_bytes, schema.batch_rows, CHUNK_BYTES)
        self._sizer = _ChunkSizer(
            *(
                rows_per_chunk(self._row_bytes, schema.batch_rows, size)
                for size in (_FIRST_CHUNK_BYTES, _MAX_CHUNK_BYTES)
            )
        )
        if job.explain is not None:
            self._chunk_rows = min(self._chunk_rows, EXPLAINED_ROWS)
            self._sizer = _ChunkSizer(self._chunk_rows, self._chunk_rows)
        self._piece_rows = rows_per_chunk(self._row_bytes, schema.batch_rows, _PIECE_BYTES)
        self.total_bytes = max(self._last - self._first, 0) * self._row_bytes
        self.decoder: Decoder = ArrayDecoder(schema)

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """See `Reader.chunks`."""
        row = position["row"] if position else self._first
        for count, payload in self._payloads(row):
            after = row + count
            yield Chunk(payload, row, {"row": after}, (after - self._first) * self._row_bytes)
            row = after

    def close(self) -> None:
        """See `Reader.close`."""
        if self._file is not None:
            self._file.close()

    def _head(self) -> bytes:
        size = min(MAX_HEADER_BYTES, self._info.size)
        if not self._gzip:
            return objects_for(self._info.url).read(self._info, 0, size)
        data = b""
        for piece in inflate(blocks(self._info, 0, self._info.size)):
            data += piece
            if len(data) >= MAX_HEADER_BYTES:
                break
        return data

    def _payloads(self, row: int) -> Iterator[tuple[int, Any]]:
        """Chunks from a row on: their number of rows, and their pieces; see `ArrayDecoder.decode`."""
        if self._info.url.startswith("file:") and not self._gzip:
            self._file = OpenFile(self._info)
            sizer = self._sizer
            while row < self._last:
                count = min(sizer.rows, self._last - row)
                start = self._header_bytes + row * self._row_bytes
                yield count, _FileRows(self._file, start, self._dtype, (count, *self._shape), self._piece_rows, sizer)
                row += count
            return
        for data in self._data(row):
            count = len(data) // self._row_bytes
            yield count, [[np.frombuffer(data, self._dtype).reshape(count, *self._shape)]]

    def _data(self, row: int) -> Iterator[bytes]:
        """The data from a row on, a chunk's rows at a time."""
        size = self._chunk_rows * self._row_bytes
        start = self._header_bytes + row * self._row_bytes
        stop = self._header_bytes + self._last * self._row_bytes
        if not self._gzip:
            yield from blocks(self._info, start, stop, size)
            return
        rest, taken = b"", start
        for piece in skip(inflate(blocks(self._info, 0, self._info.size)), start):
            rest += piece
            taken += len(piece)
            if taken > stop:
                break
            while len(rest) >= size:
                yield rest[:size]
                rest = rest[size:]
        check_end(taken, stop)
        if rest:
            yield rest


@dataclass
class _ChunkSizer:
    """How many rows the next chunk of a file has, and may have at most."""

    rows: int
    largest: int

    def note(self, rows: int, seconds: float) -> None:
        """Learn how long a chunk took."""
        if rows == self.rows and seconds < _CHUNK_SECONDS:
            self.rows = min(2 * rows, self.largest)


@dataclass
class _FileRows:
    """A chunk of a local file's rows, to be read by the worker that scores them.

    Attributes:
        file: which.
        start: the first row's place in it.
        dtype: of the values.
        shape: number of rows, and shape of one.
        piece_rows: rows that are read at a time, where they are not read by the batch.
        sizer: notes how long they took.
        straight: whether they may go to the model as they are, if they need no conversion.
    """

    file: OpenFile
    start: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    piece_rows: int
    sizer: _ChunkSizer
    straight: bool = True

    def __iter__(self) -> Iterator[list[Array]]:
        """The rows as arrays, some at a time."""
        started = perf_counter()
        for first in range(0, self.shape[0], self.piece_rows):
            rows = np.empty((min(self.piece_rows, self.shape[0] - first), *self.shape[1:]), self.dtype)
            self.file.read_into(bytes_of(rows), self.start + first * rows[0].nbytes)
            yield [rows]
        self._done(started)

    def straight_column(self, *, is_checked: bool) -> Iterator[tuple[int, Sequence[Column]]]:
        """All rows as a column that reads them where the model does, and raises NotFiniteError if it is to look.

        They are looked at just before the model reads them, while they are in the core's cache.
        """
        read, base, dtype = self.file.read_into, self.start, self.dtype

        def fill(target: memoryview, offset: int) -> None:
            read(target, base + offset)
            if is_checked:
                values = np.frombuffer(target, dtype)
                if not is_surely_finite(values) and first_non_finite(values) is not None:
                    raise NotFiniteError(NOT_FINITE)

        started = perf_counter()
        yield self.shape[0], [fill]
        self._done(started)

    def _done(self, started: float) -> None:
        self.file.check()
        self.sizer.note(self.shape[0], perf_counter() - started)


class ArrayDecoder:
    """See `base.Decoder`."""

    id_name = "row"
    passthrough: tuple[str, ...] | None = ()

    def __init__(self, schema: RowSchema) -> None:
        self._inputs = schema.inputs
        self._scaling = schema.scaling

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`. A chunk's payload is an iterable of its pieces: an array for each input."""
        rows = DecodedRows((), [])
        rows.pieces = self._pieces(chunk, rows)
        return rows

    def _pieces(self, chunk: Chunk, rows: DecodedRows) -> Iterator[tuple[int, Sequence[Column]]]:
        payload, dtype = chunk.payload, self._inputs[0].dtype.name
        if isinstance(payload, _FileRows) and payload.straight and payload.dtype == dtype != "bool":
            yield from payload.straight_column(is_checked=self._inputs[0].finite and payload.dtype.kind == "f")
            rows.ids = range(chunk.first, chunk.first + payload.shape[0])
            return
        total = 0
        for arrays in payload:
            made = [
                to_model(array, spec, self._scaling.get(spec.name))
                for array, spec in zip(arrays, self._inputs, strict=True)
            ]
            reasons = self._reasons(arrays, made)
            rows.bad += [
                BadRow(chunk.first + total + place, reasons[place], total + place) for place in sorted(reasons)
            ]
            good = [np.delete(values, list(reasons), axis=0) for values in made] if reasons else made
            yield len(good[0]), [column_of(bytes_of(values)) for values in good]
            total += len(arrays[0])
        rows.ids = range(chunk.first, chunk.first + total)
        if rows.bad:
            missing = {row.id for row in rows.bad}
            rows.ids = [row for row in rows.ids if row not in missing]

    def _reasons(self, arrays: list[Array], made: list[Array]) -> dict[int, str]:
        """Why rows are bad, by their place."""
        reasons: dict[int, str] = {}
        for array, values, spec in zip(arrays, made, self._inputs, strict=True):
            for bad, reason in unusable_rows(array, values, spec):
                for place in np.flatnonzero(bad).tolist():
                    reasons.setdefault(place, reason)
        return reasons


class NpyWriter(Writer):
    """See `base.Writer`."""

    holds_head = True

    def __init__(self, schema: RowSchema) -> None:
        if len(schema.outputs) != 1:
            names = ", ".join(spec.name for spec in schema.outputs)
            raise JobError(f"the model has the outputs {names}: a .npy holds one, choose jsonl or csv")
        self._shape = row_shape(schema.outputs[0])
        self._dtype = np.dtype(schema.outputs[0].dtype.name)

    def begin(self, decoder: Decoder) -> bytes:  # noqa: ARG002 - the same for all
        """See `Writer.begin`."""
        return self._header(0)

    def head(self, num_rows: int) -> bytes | None:
        """See `Writer.head`."""
        return self._header(num_rows)

    def encode(self, rows: DecodedRows, outputs: Sequence[Array], id_name: str) -> bytes | memoryview:  # noqa: ARG002 - rows have no names
        """See `Writer.encode`."""
        if not rows.bad:
            return bytes_of(outputs[0]) if outputs else b""
        filler = np.nan if self._dtype.kind == "f" else 0
        aligned = np.full((len(rows.ids) + len(rows.bad), *self._shape), filler, self._dtype)
        if outputs:
            good = np.ones(len(aligned), bool)
            good[[each.index for each in rows.bad]] = False
            aligned[good] = outputs[0]
        return aligned.tobytes()

    def _header(self, num_rows: int) -> bytes:
        descr = np.lib.format.dtype_to_descr(self._dtype)
        shape = (num_rows, *self._shape)
        fields = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape!r}, }}"
        padded = fields.encode().ljust(_HEAD_BYTES - 11) + b"\n"
        return b"\x93NUMPY\x01\x00" + (_HEAD_BYTES - 10).to_bytes(2, "little") + padded
