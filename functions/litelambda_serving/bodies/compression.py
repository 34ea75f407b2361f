"""Compressed bodies, both ways: gzip, and deflate in HTTP's sense, which is zlib. Imported with the first one.

What a body is goes by its first bytes, not by its header alone: some gateways decompress and leave the header.
"""

from __future__ import annotations

import zlib

from litelambda_serving.errors import MalformedRequestError, PayloadTooLargeError, UnsupportedEncodingError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

__all__ = ["accepted_encoding", "compress", "compress_parts", "content_encoding", "decompress", "is_zlib"]

_GZIP = 16 + zlib.MAX_WBITS
_GZIP_MAGIC = b"\x1f\x8b"
_FIRST_BYTES = 4096
_LEVEL = 1  # the JSON of floats shrinks by half at any level; the fastest costs a sixth of the best


def is_zlib(data: Buffer) -> bool:
    """Whether the first two bytes are a zlib header (RFC 1950), which no JSON document starts with."""
    head = bytes(memoryview(data)[:2])
    return len(head) == 2 and head[0] & 0x0F == 8 and int.from_bytes(head, "big") % 31 == 0


def decompress(data: Buffer, encoding: str, max_bytes: int) -> bytes:
    """Decompress at most the limit and one byte, so that a bomb costs no memory.

    Args:
        data: the body; of gzip, any number of members, one after the other.
        encoding: "gzip" or "deflate".
        max_bytes: what it may unfold to, all members together.

    Raises:
        MalformedRequestError: damaged, cut short, or followed by other bytes.
        PayloadTooLargeError: more than `max_bytes`.
    """
    view = memoryview(data)
    pieces: list[bytes] = []
    start, left = 0, max_bytes
    while True:
        start, left = _decompress_member(view, start, encoding, left, pieces)
        if left < 0:
            raise PayloadTooLargeError(
                f"the request body exceeds {max_bytes} bytes once decompressed: send fewer rows at a time, "
                "or score the file in batch"
            )
        if start == len(view):
            return b"".join(pieces)
        if encoding != "gzip" or bytes(view[start : start + 2]) != _GZIP_MAGIC:
            raise MalformedRequestError(f"{len(view) - start} bytes follow the end of the compressed body")


def _decompress_member(view: memoryview, start: int, encoding: str, left: int, pieces: list[bytes]) -> tuple[int, int]:
    """Decompress one member into `pieces`; where the next one starts, and how many bytes may still come out.

    Each piece of the input is twice as large as the one before: zlib copies what comes after the member's end, and a
    body of many tiny members would be copied once for each of them.
    """
    decompressor = zlib.decompressobj(_GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    size = _FIRST_BYTES
    while not decompressor.eof:
        block = view[start : start + size]
        if not block:
            raise MalformedRequestError("the compressed body is cut short")
        try:
            piece = decompressor.decompress(block, left + 1)
        except zlib.error as error:
            raise MalformedRequestError(f"the compressed body is damaged: {error}") from error
        pieces.append(piece)
        left -= len(piece)
        if left < 0:
            break
        start += len(block) - len(decompressor.unused_data)
        size *= 2
    return start, left


def compress(data: Buffer, encoding: str) -> bytes:
    """Compress a response body as `accepted_encoding` chose."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def compress_parts(parts: Iterator[bytes], encoding: str) -> Iterator[bytes]:
    """Compress a body in parts, each of which can be decompressed when it arrives."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    for part in parts:
        yield compressor.compress(part) + compressor.flush(zlib.Z_SYNC_FLUSH)
    yield compressor.flush()


def content_encoding(header: str) -> str:
    """The encoding that a Content-Encoding header names: "gzip", "deflate" or "" for none.

    Raises:
        UnsupportedEncodingError: another than gzip or deflate, or several.
    """
    codings = [coding for entry in header.lower().split(",") if (coding := entry.strip()) not in ("", "identity")]
    encoding = codings[0].removeprefix("x-") if codings else ""
    if len(codings) > 1 or encoding not in ("", "gzip", "deflate"):
        raise UnsupportedEncodingError(
            f"Content-Encoding is {header[:60]!r}: expected gzip or deflate, once, or an uncompressed body"
        )
    return encoding


def accepted_encoding(header: str) -> str:
    """The best of what an Accept-Encoding header allows: "gzip", "deflate" or "" for neither. Never br.

    >>> accepted_encoding("br, gzip;q=0.5, deflate;q=0")
    'gzip'
    """
    allowed = {}
    for entry in header.lower().split(","):
        name, _, parameter = entry.partition(";")
        quality = parameter.strip().removeprefix("q=")
        allowed[name.strip()] = quality.rstrip("0") not in ("0.", "") if quality else True
    return next((name for name in ("gzip", "deflate") if allowed.get(name)), "")
