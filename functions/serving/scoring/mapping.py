"""A local file's bytes where the system has them: read by the model without a copy.

Whoever reads a mapped file behind an end that somebody cut off is killed (SIGBUS). So a file is mapped under a lease:
who opens it to write, or cuts it, is made to wait until the lease is given back, which is done before the next batch.
Where no lease is to be had (another system, a file of somebody else's, one that is being written), nothing is mapped.

It knows nothing of formats and models.
"""

from __future__ import annotations

import fcntl
import mmap
import signal
from typing import TYPE_CHECKING, Self

import numpy as np

if TYPE_CHECKING:
    from serving.scoring.files import OpenFile

__all__ = ["MappedFile"]

_F_SETSIG = 10  # of fcntl.h; not in Python's module
_MADV_POPULATE_READ = 22  # of Linux 5.14's mman.h, likewise
_PAGE_BYTES = mmap.PAGESIZE
_WINDOW_BYTES = 8 * 1024 * 1024
_WINDOW_ALIGNMENT = 2 * 1024 * 1024  # of the largest pages, which cost the least to map


class MappedFile:
    """A window on a file, which moves along as it is read; one thread's.

    Memory holds no more of the file than the window.
    """

    def __init__(self, file: OpenFile) -> None:
        """Take a lease on a file, if there is one to be had.

        Args:
            file: opened for this alone; closed with it.

        Raises:
            InputReplacedError: the file is another version.
        """
        self._file = file
        self._window: mmap.mmap | None = None
        self._address = self._begin = self._end = 0
        self._is_leased = self._take_lease()
        try:
            file.check()  # nobody writes to it from here on
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, start: int, size: int, beyond: int) -> int:
        """Where some bytes of the file are, until the next call.

        Args:
            start: the first one's place in the file.
            size: how many.
            beyond: how many behind them may be read too, whatever they are.

        Returns:
            Their address; 0 where they must be read instead.
        """
        if not self._is_leased:
            return 0
        if fcntl.fcntl(self._file.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            self.close()  # somebody waits to write
            return 0
        if (start < self._begin or start + size + beyond > self._end) and not self._move(start, size + beyond):
            return 0
        return self._address + start - self._begin

    def close(self) -> None:
        """Give back the memory and the lease; safe to call twice."""
        self._is_leased = False
        self._drop_window()
        self._file.close()

    def _take_lease(self) -> bool:
        if not hasattr(fcntl, "F_SETLEASE"):
            return False
        try:
            # Told by a signal that does nothing unless somebody asked for it; the usual one ends the process.
            fcntl.fcntl(self._file.descriptor, _F_SETSIG, signal.SIGURG)
            fcntl.fcntl(self._file.descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
        except OSError:
            return False
        return True

    def _move(self, start: int, size: int) -> bool:
        """Map what lies around some bytes; false where that cannot be."""
        self._drop_window()
        begin = start // _WINDOW_ALIGNMENT * _WINDOW_ALIGNMENT
        length = min(max(_WINDOW_BYTES, start - begin + size), self._file.size - begin)
        end = -(-(begin + length) // _PAGE_BYTES) * _PAGE_BYTES  # what is behind the end of the file is zero
        if start + size > end:
            return False
        try:
            window = mmap.mmap(self._file.descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=begin)
            self._window = window
            window.madvise(mmap.MADV_SEQUENTIAL)
            window.madvise(_MADV_POPULATE_READ)  # what cannot be read fails here, where it kills nobody
        except OSError:
            self._is_leased = False
            self._drop_window()
            return False
        self._address, self._begin, self._end = (
            np.frombuffer(window, np.uint8).__array_interface__["data"][0],
            begin,
            end,
        )
        return True

    def _drop_window(self) -> None:
        if self._window is not None:
            self._window.close()
            self._window = None
        self._address = self._begin = self._end = 0
