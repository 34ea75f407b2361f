"""Trimming shared libraries."""

import ctypes
import struct
import sys
from pathlib import Path

import ai_edge_litert
import pytest

from litelambda.commands.elf import ElfError, trim

LIBRARY = Path(ai_edge_litert.__file__).with_name("libLiteRt.so")

pytestmark = pytest.mark.skipif(not LIBRARY.exists(), reason="the runtime's library is an ELF file on Linux alone")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux loads ELF files")
def test_a_trimmed_library_loads(tmp_path: Path) -> None:
    """The loader takes a trimmed library, which has no section left, and finds its symbols."""
    trimmed = trim(LIBRARY.read_bytes())
    assert len(trimmed) < LIBRARY.stat().st_size
    assert struct.unpack_from("<Q", trimmed, 0x28) == (0,)
    target = tmp_path / "library.so"
    target.write_bytes(trimmed)
    assert ctypes.CDLL(str(target)).LiteRtCreateEnvironment


def test_trimming_twice_is_trimming_once() -> None:
    """There is nothing more to cut from what was trimmed."""
    once = trim(LIBRARY.read_bytes())
    assert trim(once) == once


@pytest.mark.parametrize("data", [b"", b"MZ" * 100, b"\x7fELF\x01\x01" + bytes(100)], ids=["empty", "PE", "32-bit"])
def test_other_files_are_refused(data: bytes) -> None:
    """What is no 64-bit ELF file is an error and is not cut."""
    with pytest.raises(ElfError, match="not a 64-bit"):
        trim(data)


@pytest.mark.parametrize("size", [20, 100, 4096])
def test_a_truncated_file_is_refused(size: int) -> None:
    """A library that was cut short on its way is an error."""
    with pytest.raises(ElfError, match="cut short"):
        trim(LIBRARY.read_bytes()[:size])
