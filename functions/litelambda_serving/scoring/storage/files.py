"""Inputs and outputs in local folders."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import quote, unquote_to_bytes

from litelambda_serving.errors import StoreAccessError, StoreError
from litelambda_serving.scoring.errors import InputNotFoundError, InputReplacedError, LostUploadError, OutputExistsError
from litelambda_serving.scoring.storage import ObjectInfo, UploadState
from litelambda_serving.store.part_files import create_part

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FileObjects", "FileUpload", "OpenFile", "path_of"]


def path_of(url: str) -> Path:
    """The path of a file URL."""
    return Path(os.fsdecode(unquote_to_bytes(url.removeprefix("file://"))))


def _url_of(path: Path) -> str:
    return "file://" + quote(os.fsencode(path))


class OpenFile:
    """One version of a file, read by any number of threads until it is closed."""

    def __init__(self, info: ObjectInfo) -> None:
        """Open a file.

        Raises:
            InputNotFoundError: it is gone.
            InputReplacedError: it is another version.
            StoreAccessError: it may not be read.
        """
        self._info = info
        self._path = path_of(info.url)
        try:
            self._descriptor = os.open(self._path, os.O_RDONLY)
        except FileNotFoundError as error:
            raise InputNotFoundError(f"{self._path} is gone") from error
        except PermissionError as error:
            raise StoreAccessError(f"no right to read {self._path}") from error
        try:
            self.check()
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> OpenFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """Make sure that nobody wrote to the file.

        Raises:
            InputReplacedError: somebody did.
        """
        if _tag(os.fstat(self._descriptor)) != self._info.tag:
            raise InputReplacedError(f"{self._path} was changed while it was read")

    def expect(self, start: int, size: int) -> None:
        """Tell the system that some bytes will be read soon: it fetches them meanwhile."""
        advise = getattr(os, "posix_fadvise", None)
        if advise is None:  # it is macOS
            return
        with suppress(OSError):  # a file system that takes no advice
            advise(self._descriptor, start, size, os.POSIX_FADV_WILLNEED)

    def read(self, start: int, stop: int) -> bytes:
        """The bytes [start, stop), as far as there are any.

        Raises:
            StoreError: the read fails.
        """
        try:
            return os.pread(self._descriptor, max(stop - start, 0), start)
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error

    def read_into(self, target: memoryview, start: int) -> None:
        """Fill a buffer with the bytes from `start` on.

        Raises:
            InputReplacedError: the file ends before the buffer is full.
            StoreError: the read fails.
        """
        try:
            count = os.preadv(self._descriptor, (target,), start)
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error
        if count != len(target):
            raise InputReplacedError(f"{self._path} became shorter while it was read")

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileObjects:
    """See `storage.Objects`."""

    def head(self, url: str, version_id: str = "") -> ObjectInfo | None:  # noqa: ARG002 - files have no versions
        """See `Objects.head`."""
        path = path_of(url)
        try:
            status = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        except PermissionError as error:
            raise StoreAccessError(f"no right to read {path}") from error
        return ObjectInfo(url, status.st_size, _tag(status)) if path.is_file() else None

    def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """See `Objects.read`."""
        with OpenFile(info) as file:
            return file.read(start, stop)

    def list(self, url: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Objects.list`."""
        root = path_of(url)
        folder = root if url.endswith("/") else root.parent
        urls = (_url_of(path) for path in folder.rglob("*") if path.is_file())
        for found in sorted(each for each in urls if each.startswith(url) and each > start_after):
            info = self.head(found)
            if info is not None:
                yield info

    def get(self, url: str) -> tuple[bytes, str] | None:
        """See `Objects.get`."""
        path = path_of(url)
        try:
            return path.read_bytes(), _tag(path.stat())
        except FileNotFoundError:
            return None

    def put(self, url: str, data: bytes, *, tag: str | None = None, owner: str = "") -> bool:  # noqa: ARG002 - files have none
        """See `Objects.put`. Compare and swap holds against this process alone; there is one writer of a local job."""
        path = path_of(url)
        if tag:
            info = self.head(url)
            if info is None or info.tag != tag:
                return False
        upload = FileUpload(url, None, replace=tag != "")
        upload.write(data)
        try:
            upload.commit()
        except OutputExistsError:
            return False
        return path.exists()

    def delete(self, url: str) -> None:
        """See `Objects.delete`."""
        path_of(url).unlink(missing_ok=True)

    def upload(
        self,
        url: str,
        part_bytes: int,  # noqa: ARG002 - files have no parts
        state: UploadState | None = None,
        *,
        hold_head: bool = False,  # noqa: ARG002 - and can be written anywhere
        replace: bool = False,
        owner: str = "",  # noqa: ARG002 - they belong to who names them
    ) -> FileUpload:
        """See `Objects.upload`."""
        return FileUpload(url, state, replace=replace)


class FileUpload:
    """A file under a name of its own, linked to its real one at the end: create-only, and whole at once."""

    def __init__(self, url: str, state: UploadState | None, *, replace: bool = False) -> None:
        self._path = path_of(url)
        self._replace = replace
        self._file: BinaryIO | None = None
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if state is None:
                self._part, descriptor = create_part(self._path)
                self.size = 0
            else:
                self._part = Path(str(state.upload["path"]))
                self.size = int(str(state.upload["size"]))
                descriptor = os.open(self._part, os.O_RDWR | os.O_NOFOLLOW)
            self._file = os.fdopen(descriptor, "r+b")
            self._file.truncate(self.size)
            self._file.seek(self.size)
        except PermissionError as error:
            raise StoreAccessError(f"no right to write {self._path}") from error
        except FileNotFoundError as error:
            raise LostUploadError(f"the suspended upload of {self._path} is gone") from error
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error}") from error

    def write(self, data: bytes | memoryview) -> None:
        """See `Upload.write`."""
        try:
            self._open_file().write(data)
        except OSError as error:
            raise StoreError(f"cannot write {self._path}: {error}") from error
        self.size += len(data)

    def commit(self, head: bytes | None = None) -> None:
        """See `Upload.commit`."""
        file = self._open_file()
        if head:
            file.seek(0)
            file.write(head)
        file.flush()
        os.fsync(file.fileno())
        with file:  # which holds the lock until the file has its name
            if self._replace:
                self._part.replace(self._path)
                return
            try:
                os.link(self._part, self._path)
            except FileExistsError as error:
                raise OutputExistsError(f"{self._path} exists already") from error
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


def _tag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
