"""A local file's bytes where the system has them: read by the model without a copy.

Whoever reads a mapped file behind an end that somebody cut off is killed (SIGBUS). So a file is mapped under a lease:
who opens it to write, or cuts it, is made to wait until the lease is given back, which is done before the next batch
(that must come within 45 s, after which the system lets them go on).
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

__all__ = ["MappedBytes"]

_F_SETSIG = 10  # of fcntl.h; not in Python's module
_MADV_POPULATE_READ = 22  # of Linux 5.14's mman.h, likewise
_PAGE_BYTES = mmap.PAGESIZE
_LARGE_PAGE_BYTES = 2 * 1024 * 1024  # to map these whole costs the least
_WINDOW_BYTES = 8 * 1024 * 1024


class MappedBytes:
    """The bytes [start, stop) of a file, for one thread that reads them in order.

    Memory holds no more of them than a window, which moves along.

    Attributes:
        address: where the file's first byte would be, if it were among them; 0 where nothing is mapped.
    """

    def __init__(self, file: OpenFile, start: int, stop: int) -> None:
        """Take a lease on the file, if there is one to be had, and map the bytes.

        Args:
            file: opened for this alone; closed with it.
            start: the first byte's place.
            stop: the place behind the last one's.

        Raises:
            InputReplacedError: the file is another version.
        """
        self._file = file
        self._begin = start // _PAGE_BYTES * _PAGE_BYTES
        self._end = _rounded_up(min(stop, file.size), _PAGE_BYTES)  # zeros follow the end of a file, up to its page's
        self._kept = self._ready = self._begin  # in place is what lies between
        self._map: mmap.mmap | None = None
        self.address = 0
        is_leased = self._take_lease()
        try:
            file.check()  # nobody writes to it from here on
            if is_leased:
                self._map_bytes()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def find(self, start: int, size: int, beyond: int) -> int:
        """Where some of the bytes are, until the next call.

        Args:
            start: the first one's place in the file.
            size: how many.
            beyond: how many behind them may be read too, whatever they are.

        Returns:
            Their address; 0 where they must be read instead.
        """
        if self._map is None:
            return 0
        if fcntl.fcntl(self._file.descriptor, fcntl.F_GETLEASE) != fcntl.F_RDLCK:
            self.close()  # somebody waits to write
            return 0
        stop = start + size + beyond
        if stop > self._ready and not self._move(start, stop):
            return 0
        return self.address + start

    def close(self) -> None:
        """Give back the memory and the lease; safe to call twice."""
        if self._map is not None:
            self._map.close()
            self._map, self.address = None, 0
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

    def _map_bytes(self) -> None:
        length = min(self._end, self._file.size) - self._begin
        if length <= 0:
            return
        try:
            self._map = mmap.mmap(self._file.descriptor, length, mmap.MAP_SHARED, mmap.PROT_READ, offset=self._begin)
            self._map.madvise(mmap.MADV_SEQUENTIAL)
        except OSError:
            return
        address: int = np.frombuffer(self._map, np.uint8).__array_interface__["data"][0]
        self.address = address - self._begin
        self._move(self._begin, self._begin)  # now: nobody measures how long it takes

    def _move(self, start: int, stop: int) -> bool:
        """Put what follows in place, and let go of what lies before; false where that cannot be."""
        if self._map is None or stop > self._end:
            return False
        done = start // _LARGE_PAGE_BYTES * _LARGE_PAGE_BYTES
        ready = min(_rounded_up(max(self._ready + _WINDOW_BYTES, stop), _LARGE_PAGE_BYTES), self._end)
        try:
            if done > self._kept:
                self._map.madvise(mmap.MADV_DONTNEED, self._kept - self._begin, done - self._kept)
                self._kept = done
            # What cannot be read fails here, where it kills nobody.
            self._map.madvise(_MADV_POPULATE_READ, self._ready - self._begin, ready - self._ready)
        except OSError:
            self.close()
            return False
        self._ready = ready
        return True


def _rounded_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
