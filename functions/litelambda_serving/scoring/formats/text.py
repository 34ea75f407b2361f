"""What line-based formats have in common: cutting a stream of bytes into chunks of whole lines.

Lines end with LF or CRLF; a CR alone, which ends them too, becomes LF on the way. Ranges of a file are cut at LF only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.scoring.byte_stream import blocks, inflate, skip
from litelambda_serving.scoring.errors import JobError, UnreadableInputError
from litelambda_serving.scoring.formats.base import Chunk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.job import Job

    Split = Callable[[bytes], tuple[bytes, bytes]]

__all__ = ["BYTE_ORDER_MARK", "LineSource", "line_spans", "lines_of", "with_line_feeds"]

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
CHUNK_BYTES = 1024 * 1024
EXPLAINED_CHUNK_BYTES = 32 * 1024  # each row takes hundreds of runs, and a job stops between two chunks
MAX_LINE_BYTES = 32 * 1024 * 1024
_LONE_CR = re.compile(rb"\r(?=[^\n])")  # the last byte of a piece may be the first of a CRLF
_PACKED_BYTES = 256 * 1024  # of gzip, from which text makes about one chunk
_NEWLINE = ord("\n")
_PIECE_BYTES = 32 * 1024
_LONG_LINE_BYTES = 1000  # from which on to look for each end is faster than to compare every byte


class LineSource:
    """The lines of an object, or of a range of its bytes: a line belongs to the range that it starts in."""

    def __init__(self, job: Job, info: ObjectInfo) -> None:
        self._info = info
        self.gzip = job.input.lower().endswith(".gz")
        if self.gzip and job.span:
            raise JobError(f"{job.input} is gzipped: it cannot be split into ranges")
        self._start, self._stop = job.span or (0, info.size)
        self.total_bytes = self._stop - self._start
        self._chunk_bytes = CHUNK_BYTES if job.explain is None else EXPLAINED_CHUNK_BYTES
        self._taken_bytes = 0  # of a gzipped object, by what takes the gzip off

    @property
    def whole(self) -> bool:
        """Whether this starts where the object does."""
        return self._start == 0

    def head(self, count: int) -> bytes:
        """The first bytes of the object, wherever the range starts, gzip taken off."""
        data = b""
        for block in self._stream(0, self._info.size):
            data += block
            if len(data) >= count:
                break
        return data

    def chunks(
        self, position: dict[str, Any] | None, split: Split | None = None, first_line: int = 1
    ) -> Iterator[Chunk]:
        """Cut into chunks that end where `split` says.

        Args:
            position: `offset` of the next line in the uncompressed stream, and its number `line`; None to start.
            split: parts the whole records at the start of some bytes from what follows them, both `with_line_feeds`;
                None where each record is a line.
            first_line: number of the first line, where `position` is None.
        """
        offset, line = (position["offset"], position["line"]) if position else (self._begin(), first_line)
        rest = b""
        for block in self._stream(offset, self._stop):
            whole, rest = _cut(rest, block, split)
            if whole:
                chunk = self._chunk(whole, offset, line)
                offset, line = chunk.position["offset"], chunk.position["line"]
                yield chunk
            elif len(rest) > MAX_LINE_BYTES:
                raise UnreadableInputError(f"line {line} is longer than {MAX_LINE_BYTES} bytes")
        if rest:
            yield from self._last(rest, offset, line, split or _whole_lines)

    def _last(self, data: bytes, offset: int, line: int, split: Split) -> Iterator[Chunk]:
        """The rest: what is whole, and the line that the next range would begin inside of."""
        whole, rest = (data, b"") if self._stop == self._info.size else split(data)
        if whole:
            chunk = self._chunk(whole, offset, line)
            offset, line = chunk.position["offset"], chunk.position["line"]
            yield chunk
        if rest:
            tail = split(rest + self._line_end(self._stop))
            yield self._chunk(b"".join(tail), offset, line)

    def _chunk(self, data: bytes, offset: int, line: int) -> Chunk:
        after = {"offset": offset + len(data), "line": line + _count_lines(data)}
        done = self._taken_bytes if self.gzip else after["offset"] - self._start
        return Chunk(data, line, after, min(done, self.total_bytes))

    def _begin(self) -> int:
        """Where the first line that starts in the range starts."""
        if self._start == 0:
            return 0
        return self._start - 1 + len(self._line_end(self._start - 1))

    def _line_end(self, offset: int) -> bytes:
        """The bytes from an offset to the end of its line."""
        data = b""
        for block in blocks(self._info, offset, self._info.size, 256 * 1024):
            end = block.find(b"\n")
            if end >= 0:
                return data + block[: end + 1]
            data += block
            if len(data) > MAX_LINE_BYTES:
                raise UnreadableInputError(f"the line at byte {offset} is longer than {MAX_LINE_BYTES} bytes")
        return data

    def _stream(self, offset: int, stop: int) -> Iterator[bytes]:
        if self.gzip:
            return skip(inflate(self._packed(), self._chunk_bytes), offset)
        return blocks(self._info, offset, stop, self._chunk_bytes)

    def _packed(self) -> Iterator[bytes]:
        """A gzipped object's bytes, in pieces; those that were taken are counted."""
        self._taken_bytes = 0
        for block in blocks(self._info, 0, self._info.size):
            for start in range(0, len(block), _PACKED_BYTES):
                piece = block[start : start + _PACKED_BYTES]
                self._taken_bytes += len(piece)
                yield piece


def _cut(rest: bytes, block: bytes, split: Split | None) -> tuple[bytes, bytes]:
    """The whole records of two pieces, and what follows them."""
    if split is not None:
        return split(rest + block)
    if b"\r" in block or rest.endswith(b"\r"):
        return _whole_lines(rest + block)
    length = block.rfind(b"\n") + 1  # the first piece holds no end of a line: one copy is enough
    if not length:
        return b"", rest + block
    return b"".join((rest, memoryview(block)[:length])), block[length:]


def _whole_lines(data: bytes) -> tuple[bytes, bytes]:
    data = with_line_feeds(data)
    length = data.rfind(b"\n") + 1
    return data[:length], data[length:]


def with_line_feeds(data: bytes) -> bytes:
    """The same bytes with LF for each CR that no LF follows; a CR at the end, which one may, is left."""
    return _LONE_CR.sub(b"\n", data) if b"\r" in data else data


def _count_lines(data: bytes) -> int:
    if data.find(b"\n") >= _LONG_LINE_BYTES:
        return sum(stop < len(data) for _start, stop in line_spans(data))
    # Ten times as fast as bytes.count, if what is compared does not leave the core's cache.
    values = np.frombuffer(data, np.uint8)
    pieces = (values[start : start + _PIECE_BYTES] for start in range(0, len(values), _PIECE_BYTES))
    return sum(int(np.count_nonzero(piece == _NEWLINE)) for piece in pieces)


def line_spans(data: bytes) -> Iterator[tuple[int, int]]:
    """Where each line starts and ends, its newline left out; see `lines_of`."""
    start, find = 0, data.find
    while (stop := find(b"\n", start)) >= 0:
        yield start, stop
        start = stop + 1
    if start < len(data):
        yield start, len(data)


def lines_of(data: bytes) -> list[bytes]:
    """Lines without their ends; whatever follows the last newline is a line too, unless it is empty."""
    lines = data.split(b"\n")
    if not lines[-1]:
        lines.pop()
    return lines
