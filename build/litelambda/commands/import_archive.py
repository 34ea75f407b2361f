"""Unpacks an archive that somebody else made, such as SageMaker's `model.tar.gz`, into a folder of its own.

Only plain files and folders come out, inside that folder, and no more of them than the limits allow.
"""

from __future__ import annotations

import tarfile
from pathlib import Path

from litelambda.common.errors import UsageError

__all__ = ["ARCHIVE_SUFFIXES", "unpack"]

ARCHIVE_SUFFIXES = (".tar.gz", ".tgz", ".tar")

_MAX_FILES = 10_000
_MAX_BYTES = 8 * 1024**3  # a flatbuffer has up to 2 GiB, and a SavedModel its weights and an optimizer's


def unpack(archive: Path, folder: Path, *, max_files: int = _MAX_FILES, max_bytes: int = _MAX_BYTES) -> None:
    """Unpack an archive.

    Args:
        archive: a .tar.gz, .tgz or .tar file.
        folder: an empty folder.
        max_files: how many files and folders it may have.
        max_bytes: how large they may be together.

    Raises:
        UsageError: it is damaged or too large, or has a link, a device, or a name outside of it.
    """
    num_bytes = 0
    try:
        with tarfile.open(archive, "r:*") as tar:
            for count, member in enumerate(tar, 1):
                if not (member.isfile() or member.isdir()):
                    raise UsageError(
                        f"{archive}: {member.name} is not a file or a folder: pack it without links, with "
                        "`tar --dereference --hard-dereference`"
                    )
                num_bytes += member.size
                if count > max_files or num_bytes > max_bytes:
                    raise UsageError(
                        f"{archive} has more than {max_files:,} files or {max_bytes:,} bytes: pack only the model"
                    )
                tar.extract(member, folder, filter="data")
    except tarfile.FilterError as error:
        raise UsageError(f"{archive} is refused, it has a name outside of the archive: {error}") from error
    except (tarfile.TarError, EOFError, OSError) as error:
        raise UsageError(f"{archive} cannot be unpacked: {error}") from error
