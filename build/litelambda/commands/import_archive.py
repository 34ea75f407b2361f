"""Unpacks an archive that somebody else made, such as SageMaker's `model.tar.gz`, into a folder of its own.

Only plain files and folders come out, inside that folder, and no more of them than the limits allow.
"""

from __future__ import annotations

import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from litelambda.common.archive_errors import ARCHIVE_ERRORS
from litelambda.common.errors import UsageError

__all__ = ["ARCHIVE_SUFFIXES", "unpack"]

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar", ".zip")

_MAX_FILES = 10_000
_MAX_BYTES = 8 * 1024**3  # a flatbuffer has up to 2 GiB, and a SavedModel its weights and an optimizer's


class _Member(NamedTuple):
    """A file or folder of an archive; what is neither is not `plain`. `extract` takes the folder to unpack into."""

    name: str
    size: int
    plain: bool
    extract: Callable[[Path], object]


def unpack(archive: Path, folder: Path, *, max_files: int = _MAX_FILES, max_bytes: int = _MAX_BYTES) -> None:
    """Unpack an archive.

    Args:
        archive: a .tar.gz, .tgz, .tar or .zip file.
        folder: an empty folder.
        max_files: how many files and folders it may have.
        max_bytes: how large they may be together.

    Raises:
        UsageError: it is damaged or too large, or has a link, a device, or a name outside of it.
    """
    num_bytes = 0
    root = folder.resolve()
    try:
        for count, member in enumerate(_zip_members(archive) if archive.suffix == ".zip" else _tar_members(archive), 1):
            if not member.plain:
                raise UsageError(
                    f"{archive}: {member.name} is not a file or a folder: pack it without links, with "
                    "`tar --dereference --hard-dereference`"
                )
            num_bytes += member.size
            if count > max_files or num_bytes > max_bytes:
                raise UsageError(
                    f"{archive} has more than {max_files:,} files or {max_bytes:,} bytes: pack only the model"
                )
            if not (root / member.name).resolve().is_relative_to(root):
                raise UsageError(f"{archive} is refused, it has a name outside of the archive: {member.name}")
            member.extract(root)
    except (*ARCHIVE_ERRORS, OSError) as error:
        raise UsageError(f"{archive} cannot be unpacked: {error}") from error


def _tar_members(archive: Path) -> Iterator[_Member]:
    with tarfile.open(archive, "r:*") as tar:
        for member in tar:
            plain = member.isfile() or member.isdir()
            yield _Member(member.name, member.size, plain, partial(tar.extract, member, filter="data"))


def _zip_members(archive: Path) -> Iterator[_Member]:
    with zipfile.ZipFile(archive) as opened:
        for member in opened.infolist():
            kind = stat.S_IFMT(member.external_attr >> 16)  # 0 where it was packed on Windows
            plain = kind in (0, stat.S_IFREG, stat.S_IFDIR)
            yield _Member(member.filename, member.file_size, plain, partial(opened.extract, member))
