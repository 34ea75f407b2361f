"""A file that is written aside and becomes visible whole.

Such a file is locked as long as its writer lives. What a killed writer left behind has no lock: the next writer of the
same file removes it. Its name cannot be foreseen, and no link that lies there is followed.
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from litelambda_serving.errors import StoreConflictError, StoreError
from litelambda_serving.objects.base import UploadState, path_of
from litelambda_serving.objects.errors import LostUploadError, file_errors

__all__ = ["FileUpload"]

_ENDING = ".part"
_SHOWN = 40  # characters of the final name, so that a person sees what it is


class FileUpload:
    """A file under a name of its own, linked to its real one at the end: create-only, and whole at once."""

    def __init__(self, url: str, state: UploadState | None, *, replace: bool = False) -> None:
        self._path = path_of(url)
        self._replace = replace
        self._file: BinaryIO | None = None
        with file_errors("write", self._path):
            if state is None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._part, descriptor = _create_part(self._path)
                self.size = 0
            else:
                self._part = Path(str(state.upload["path"]))
                self.size = int(str(state.upload["size"]))
                try:
                    descriptor = os.open(self._part, os.O_RDWR | os.O_NOFOLLOW)
                except FileNotFoundError as error:
                    raise LostUploadError(f"the suspended upload of {self._path} is gone") from error
            self._file = os.fdopen(descriptor, "r+b")
            self._file.truncate(self.size)
            self._file.seek(self.size)

    def write(self, data: bytes | memoryview) -> None:
        """See `Upload.write`."""
        with file_errors("write", self._path):
            self._open_file().write(data)
        self.size += len(data)

    def commit(self, head: bytes | None = None) -> None:
        """See `Upload.commit`."""
        with file_errors("write", self._path), self._open_file() as file:  # locked until it has its name
            if head:
                file.seek(0)
                file.write(head)
            file.flush()
            os.fsync(file.fileno())
            if self._replace:
                self._part.replace(self._path)
            else:
                self._link()
            _sync_folder(self._path.parent)

    def _link(self) -> None:
        try:
            os.link(self._part, self._path)  # unlike a rename, refuses to replace
        except FileExistsError as error:
            raise StoreConflictError(f"{self._path} exists already") from error
        finally:
            self._part.unlink()

    def suspend(self) -> UploadState:
        """See `Upload.suspend`."""
        file = self._open_file()
        file.flush()
        os.fsync(file.fileno())
        kept = self._part.with_suffix(".suspended")  # a name that is not taken for one left behind
        self._part.rename(kept)
        file.close()
        return UploadState({"path": str(kept), "size": self.size})

    def abort(self) -> None:
        """See `Upload.abort`."""
        if self._file is not None:
            self._file.close()
            self._file = None
            self._part.unlink(missing_ok=True)

    def _open_file(self) -> BinaryIO:
        if self._file is None:
            raise StoreError(f"the upload of {self._path} was aborted")
        return self._file


def _sync_folder(folder: Path) -> None:
    """Have a folder's new entry on disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _create_part(path: Path) -> tuple[Path, int]:
    """Make an empty hidden file next to a path, for this process alone.

    Returns:
        Its path and its descriptor, which holds the lock.

    Raises:
        OSError: the folder cannot be written to.
    """
    _remove_stale_parts(path)
    while True:
        part = path.with_name(f"{_beginning(path)}{secrets.token_hex(8)}{_ENDING}")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
        _lock(descriptor, fcntl.LOCK_EX)
        if os.fstat(descriptor).st_nlink:
            return part, descriptor
        os.close(descriptor)  # another writer came between the two lines above, and took it for one left behind


def _remove_stale_parts(path: Path) -> None:
    """Remove what writers of a path that were killed left behind."""
    beginning = _beginning(path)
    for name in os.listdir(path.parent):
        if not (name.startswith(beginning) and name.endswith(_ENDING)):
            continue
        part = path.with_name(name)
        with suppress(OSError):  # it is gone, or not this user's
            descriptor = os.open(part, os.O_RDWR | os.O_NOFOLLOW)
            try:
                if _lock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    part.unlink()
            finally:
                os.close(descriptor)


def _beginning(path: Path) -> str:
    return f".{path.name[:_SHOWN]}."


def _lock(descriptor: int, how: int) -> bool:
    """Whether the lock was to be had; on a file system that knows none it never is."""
    try:
        fcntl.flock(descriptor, how)
    except OSError:
        return False
    return True
