"""What Python raises for archives that are damaged, behind a password, or of a compression that it lacks."""

from __future__ import annotations

import lzma
import tarfile
import zipfile
import zlib

__all__ = ["ARCHIVE_ERRORS"]

ARCHIVE_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    ValueError,  # of names that UTF-8 does not have, or with a NUL
    RuntimeError,  # of passwords and of unknown compressions
)
"""Of `tarfile` and `zipfile`, which let those of the libraries below them through; an `OSError` may be the disk's."""
