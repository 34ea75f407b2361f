"""Compressed bodies, both ways: gzip, and deflate in HTTP's sense, which is zlib. Imported with the first one.

What a body is goes by its first bytes, not by its header alone: some gateways decompress and leave the header.
"""

from __future__ import annotations

import zlib

from serving.errors import MalformedRequestError, PayloadTooLargeError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

__all__ = ["accepted_encoding", "compress", "decompress", "is_zlib"]

_GZIP = 16 + zlib.MAX_WBITS
_LEVEL = 1  # the JSON of floats shrinks by half at any level; the fastest costs a sixth of the best


def is_zlib(data: Buffer) -> bool:
    """Whether the first two bytes are a zlib header (RFC 1950), which no JSON document starts with."""
    head = bytes(memoryview(data)[:2])
    return len(head) == 2 and head[0] & 0x0F == 8 and int.from_bytes(head, "big") % 31 == 0


def decompress(data: Buffer, encoding: str, max_bytes: int) -> bytes:
    """Decompress at most the limit and one byte, so that a bomb costs no memory.

    Args:
        data: the body.
        encoding: "gzip" or "deflate".
        max_bytes: what it may unfold to.

    Raises:
        MalformedRequestError: damaged or cut short.
        PayloadTooLargeError: more than `max_bytes`.
    """
    decompressor = zlib.decompressobj(_GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    try:
        plain = decompressor.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise MalformedRequestError(f"the compressed body is damaged: {error}") from error
    if len(plain) > max_bytes:
        raise PayloadTooLargeError(
            f"the request body exceeds {max_bytes} bytes once decompressed: send fewer rows at a time, "
            "or score the file in batch"
        )
    if not decompressor.eof:
        raise MalformedRequestError("the compressed body is cut short")
    return plain


def compress(data: Buffer, encoding: str) -> bytes:
    """Compress a response body as `accepted_encoding` chose."""
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, _GZIP if encoding == "gzip" else zlib.MAX_WBITS)
    return compressor.compress(data) + compressor.flush()


def accepted_encoding(header: str) -> str:
    """The best of what an Accept-Encoding header allows: "gzip", "deflate" or "" for neither. Never br."""
    allowed = {}
    for entry in header.lower().split(","):
        name, _, parameter = entry.partition(";")
        quality = parameter.strip().removeprefix("q=")
        allowed[name.strip()] = quality.rstrip("0") not in ("0.", "") if quality else True
    return next((name for name in ("gzip", "deflate") if allowed.get(name)), "")
