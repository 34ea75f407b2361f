"""Bytes of an object as a stream: ranges fetched ahead, gzip taken off.

Memory holds a few blocks, however large the object is.
"""

from __future__ import annotations

import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING

from litelambda_serving.objects import objects_for
from litelambda_serving.objects.files import OpenFile
from litelambda_serving.scoring.errors import UnreadableInputError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from concurrent.futures import Future

    from litelambda_serving.objects.base import ObjectInfo

__all__ = ["BLOCK_BYTES", "blocks", "inflate", "skip"]

BLOCK_BYTES = 4 * 1024 * 1024
_AHEAD = 3
_GZIP = 16 + zlib.MAX_WBITS


def blocks(info: ObjectInfo, start: int, stop: int, block_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """The bytes [start, stop) of an object in order, the next ranges on their way while one is worked on.

    Raises:
        ObjectReplacedError: the object changed meanwhile.
        StoreError: it could not be read.
    """
    if info.url.startswith("file:"):
        yield from _file_blocks(info, start, min(stop, info.size), block_bytes)
        return
    objects, stop = objects_for(info.url), min(stop, info.size)
    ranges = iter(range(start, stop, block_bytes))
    with ThreadPoolExecutor(_AHEAD, thread_name_prefix="read") as executor:

        def submit(count: int) -> Iterator[Future[bytes]]:
            for first in islice(ranges, count):
                yield executor.submit(objects.read, info, first, min(first + block_bytes, stop))

        pending = deque(submit(_AHEAD))
        try:
            while pending:
                data = pending.popleft().result()
                pending.extend(submit(1))
                yield data
        finally:
            for future in pending:
                future.cancel()


def _file_blocks(info: ObjectInfo, start: int, stop: int, block_bytes: int) -> Iterator[bytes]:
    """A local file's: the system fetches what is ahead, where threads would only take turns with their reader."""
    if start >= stop:
        return
    ahead = _AHEAD * block_bytes
    with OpenFile(info) as file:
        file.expect(start, ahead)
        for first in range(start, stop, block_bytes):
            file.expect(first + ahead, block_bytes)
            data = file.read(first, min(first + block_bytes, stop))
            file.check()
            yield data


def inflate(stream: Iterable[bytes], piece_bytes: int = BLOCK_BYTES) -> Iterator[bytes]:
    """Gzip taken off, in pieces of bounded size whatever the ratio is; several members are one stream.

    Raises:
        UnreadableInputError: no gzip, damaged, or cut short.
    """
    inflater = zlib.decompressobj(_GZIP)
    begun = ended = False  # a member; one before
    try:
        for block in stream:
            data = block.lstrip(b"\0") if ended and not begun else block  # padding between members is legal
            while data:
                piece = inflater.decompress(data, piece_bytes)
                begun = True
                if piece:
                    yield piece
                data = inflater.unconsumed_tail
                if inflater.eof:
                    data = inflater.unused_data.lstrip(b"\0")
                    inflater, begun, ended = zlib.decompressobj(_GZIP), False, True
        while begun and not inflater.eof:
            piece = inflater.decompress(inflater.unconsumed_tail, piece_bytes)
            if not piece:
                break
            yield piece
    except zlib.error as error:
        raise UnreadableInputError(f"the gzip stream is damaged: {error}") from error
    if begun and not inflater.eof:
        raise UnreadableInputError("the gzip stream is cut short")


def skip(stream: Iterable[bytes], count: int) -> Iterator[bytes]:
    """A stream without its first `count` bytes."""
    for data in stream:
        if count >= len(data):
            count -= len(data)
        else:
            yield data[count:] if count else data
            count = 0
