"""Cutting a shared library down to what the loader maps: without symbol tables and section headers.

Works alike on every machine, for every architecture, which no machine's `strip` does; and always gives the same bytes.
"""

from __future__ import annotations

import struct

__all__ = ["ElfError", "trim"]

_MAGIC_64_LITTLE = b"\x7fELF\x02\x01"
_SECTION_TABLE_OFFSET = 0x28  # e_shoff, 8 bytes
_PROGRAM_TABLE_OFFSET = 0x20  # e_phoff, 8 bytes
_PROGRAM_TABLE_ENTRIES = 0x36  # e_phentsize, e_phnum: 2 bytes each
_SECTION_TABLE_ENTRIES = 0x3A  # e_shentsize, e_shnum, e_shstrndx: 2 bytes each
_SEGMENT_EXTENT = 0x08  # p_offset, then p_vaddr, p_paddr, p_filesz: 8 bytes each


class ElfError(ValueError):
    """Not a 64-bit little-endian ELF file, or one whose headers point outside of it."""


def trim(data: bytes) -> bytes:
    """Drop everything behind the last segment, and the section header that would point there.

    Args:
        data: an ELF file, 64-bit, little-endian.

    Returns:
        The same library for the dynamic loader, which reads segments alone.

    Raises:
        ElfError: it is not an ELF file.

    Source: System V ABI, chapters 4 and 5 (object files; program loading and dynamic linking).
    """
    if not data.startswith(_MAGIC_64_LITTLE):
        raise ElfError(f"not a 64-bit little-endian ELF file: it starts with {data[:6]!r}")
    try:
        (table,) = struct.unpack_from("<Q", data, _PROGRAM_TABLE_OFFSET)
        entry_bytes, num_entries = struct.unpack_from("<HH", data, _PROGRAM_TABLE_ENTRIES)
        ends = [table + entry_bytes * num_entries]
        for index in range(num_entries):
            offset, _, _, size = struct.unpack_from("<QQQQ", data, table + index * entry_bytes + _SEGMENT_EXTENT)
            ends.append(offset + size)
    except struct.error as error:
        raise ElfError(f"cut short: {error}") from error
    if max(ends) > len(data):
        raise ElfError(f"cut short: its segments end at {max(ends):,}, the file at {len(data):,}")
    kept = bytearray(data[: max(ends)])
    struct.pack_into("<Q", kept, _SECTION_TABLE_OFFSET, 0)
    struct.pack_into("<HHH", kept, _SECTION_TABLE_ENTRIES, 0, 0, 0)
    return bytes(kept)
