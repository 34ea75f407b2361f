"""Artifacts that are stored compressed, back into the flatbuffer, straight into memory.

Imported only for an artifact that needs it, and so are the decompressors: an uncompressed one pays nothing for them.
The stored form was verified before: nothing but the publisher's own bytes reaches a decompressor, and even these may
not grow beyond what the manifest says.
"""

from __future__ import annotations

from serving.errors import ArtifactError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from serving.manifest import FileEntry

__all__ = ["unpack"]

_CHECKED_FROM_BYTES = 1024 * 1024


def unpack(data: Buffer, entry: FileEntry, name: str) -> Buffer:
    """Decompress a stored file.

    Args:
        data: the stored bytes, verified.
        entry: their pin, with the encoding and the unpacked form's size.
        name: for messages.

    Raises:
        ArtifactError: the bytes are not of that encoding, or not of that size unpacked.
        ModelTooLargeError: the unpacked model does not fit into this function.
    """
    pin = entry.unpacked
    if pin is None:
        return data
    if pin.size_bytes >= _CHECKED_FROM_BYTES:
        from serving.memory import check_fits

        check_fits(name, pin.size_bytes)
    unpacked = _ENCODINGS[entry.encoding](data, pin.size_bytes, name)
    if len(unpacked) != pin.size_bytes:
        raise ArtifactError(
            f"{name} does not unpack to the {pin.size_bytes} bytes that the manifest pins: publish it again"
        )
    return unpacked


def _unpack_zlib(data: Buffer, size_bytes: int, name: str) -> bytes:
    from zlib import decompressobj, error

    try:
        return decompressobj().decompress(data, size_bytes + 1)
    except error as failure:
        raise ArtifactError(f"{name} is not the zlib stream that the manifest says: {failure}") from failure


def _unpack_xz(data: Buffer, size_bytes: int, name: str) -> bytes:
    # The C module alone: `lzma` around it imports 2 ms of file objects.
    from _lzma import FORMAT_XZ, LZMADecompressor, LZMAError

    try:
        return LZMADecompressor(FORMAT_XZ).decompress(data, size_bytes + 1)
    except LZMAError as failure:
        raise ArtifactError(f"{name} is not the xz stream that the manifest says: {failure}") from failure


_ENCODINGS = {"zlib": _unpack_zlib, "xz": _unpack_xz}
"""By the manifest's word for an encoding, what undoes it."""
