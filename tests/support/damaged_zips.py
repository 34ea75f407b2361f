"""Damaged .zip files, by the format's own headers: the kinds for which Python raises errors of different types."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

__all__ = ["DAMAGES", "damaged_zip"]

DAMAGES = {
    "is encrypted, password required": (zipfile.ZIP_STORED, {6: b"\x01"}),
    "compression method is not supported": (zipfile.ZIP_STORED, {8: b"\x63"}),
    "Bad CRC-32": (zipfile.ZIP_STORED, {14: b"\xff\xff\xff\xff"}),
    "Error -3 while decompressing": (zipfile.ZIP_DEFLATED, {45: b"\xff\xff\xff\xff"}),
    "Corrupt input data": (zipfile.ZIP_LZMA, {55: b"\xff\xff\xff\xff"}),
    "'utf-8' codec can't decode": (zipfile.ZIP_STORED, {7: b"\x08", 30: b"\xff"}),
}
"""By what Python says: the compression, and what is written over the first member's header, name or content."""
_NAME = 30  # where it begins


def damaged_zip(message: str, members: Mapping[str, bytes]) -> bytes:
    """A .zip file whose first member, with a name of five characters or more, is damaged in the way of a message."""
    compression, changes = DAMAGES[message]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    data = bytearray(stream.getvalue())
    directory = data.index(b"PK\x01\x02")
    for place, change in changes.items():
        data[place : place + len(change)] = change
        if place <= _NAME:  # the directory's copy is 2 bytes further on, that of the name 16
            copy = directory + place + (16 if place == _NAME else 2)
            data[copy : copy + len(change)] = change
    return bytes(data)
