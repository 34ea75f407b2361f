"""Rows of an output that wait until those before it have left: in memory, and from some size on in a file."""

from __future__ import annotations

import os

from litelambda_serving.streaming import BLOCK_BYTES
from litelambda_serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Kept"]

_MOST_BYTES = 1024 * 1024  # in memory


class Kept:
    """The rows of one output, in their order."""

    def __init__(self) -> None:
        self._strings: list[bytes] = []
        self._buffer = bytearray()
        self._file = -1
        self._rows = 0
        self._like: Tensor | None = None

    def add(self, tensor: Tensor) -> None:
        """Keep the next rows."""
        self._like = tensor
        self._rows += tensor.shape[0]
        if type(tensor.data) is list:
            self._strings += tensor.data
            return
        self._buffer += tensor.data
        if len(self._buffer) > _MOST_BYTES:
            if self._file < 0:
                path = f"/tmp/litelambda-{os.getpid()}-{id(self)}"  # noqa: S108 - Lambda's own, and no name is left
                self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
                os.unlink(path)
            os.writev(self._file, [self._buffer])
            self._buffer.clear()

    def blocks(self) -> Iterator[Tensor]:
        """Give them back, some rows after the other."""
        like = self._like
        if like is None:
            return
        row_shape = like.shape[1:]
        if type(like.data) is list:
            yield Tensor(like.dtype, (self._rows, *row_shape), self._strings)
            return
        row_bytes = memoryview(like.data).nbytes // like.shape[0]
        step = max(1, BLOCK_BYTES // (row_bytes or 1))
        written = 0
        if self._file >= 0:
            written = os.lseek(self._file, 0, os.SEEK_CUR)
            os.lseek(self._file, 0, os.SEEK_SET)
        for start in range(0, self._rows, step):
            count = min(step, self._rows - start)
            first, size = start * row_bytes, count * row_bytes
            data = b"" if first >= written else os.pread(self._file, min(size, written - first), first)
            rest = first + len(data) - written
            data += self._buffer[rest : rest + size - len(data)] if len(data) < size else b""
            yield Tensor(like.dtype, (count, *row_shape), data)

    def __del__(self) -> None:
        """Give the file's room back."""
        if self._file >= 0:
            os.close(self._file)
