"""Objects in local folders."""

from __future__ import annotations

import fcntl
import hashlib
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING
from urllib.parse import quote

from litelambda_serving.errors import ObjectNotFoundError, StoreConflictError, StoreError
from litelambda_serving.objects.base import ObjectInfo, chunks_of, path_of
from litelambda_serving.objects.errors import ObjectReplacedError, file_errors
from litelambda_serving.objects.file_upload import FileUpload

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from litelambda_serving.objects.base import UploadState

__all__ = ["FileObjects", "OpenFile"]


def _url_of(path: Path) -> str:
    return "file://" + quote(os.fsencode(path))


class OpenFile:
    """One version of a file, read by any number of threads until it is closed."""

    def __init__(self, info: ObjectInfo) -> None:
        """Open a file.

        Raises:
            ObjectNotFoundError: it is gone.
            ObjectReplacedError: it is another version.
            StoreAccessError: it may not be read.
        """
        self._info = info
        self._path = path_of(info.url)
        with file_errors("read", self._path):
            self._descriptor = os.open(self._path, os.O_RDONLY)
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
        """Make sure that the file was not written to.

        Raises:
            ObjectReplacedError: it was.
        """
        if _tag(os.fstat(self._descriptor)) != self._info.tag:
            raise ObjectReplacedError(f"{self._path} was changed while it was read")

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
        with file_errors("read", self._path):
            return os.pread(self._descriptor, max(stop - start, 0), start)

    def read_into(self, target: memoryview, start: int) -> None:
        """Fill a buffer with the bytes from `start` on.

        Raises:
            ObjectReplacedError: the file ends before the buffer is full.
            StoreError: the read fails.
        """
        try:  # no context manager: this is called once per batch
            count = os.preadv(self._descriptor, (target,), start)
        except OSError as error:
            raise StoreError(f"cannot read {self._path}: {error}") from error
        if count != len(target):
            raise ObjectReplacedError(f"{self._path} became shorter while it was read")

    def close(self) -> None:
        """Close the file; safe to call twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1


class FileObjects:
    """See `base.Objects`."""

    def head(self, url: str, version_id: str = "") -> ObjectInfo | None:  # noqa: ARG002 - files have no versions
        """See `Objects.head`."""
        path = path_of(url)
        with suppress(ObjectNotFoundError), file_errors("read", path):
            status = path.stat()
            return ObjectInfo(url, status.st_size, _tag(status)) if path.is_file() else None
        return None

    def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """See `Objects.read`."""
        with OpenFile(info) as file:
            return file.read(start, stop)

    def list(self, url: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Objects.list`."""
        root = path_of(url)
        folder = root if url.endswith("/") else root.parent
        with file_errors("read", folder):
            urls = [_url_of(path) for path in folder.rglob("*") if path.is_file()]
        for found in sorted(each for each in urls if each.startswith(url) and each > start_after):
            info = self.head(found)
            if info is not None:
                yield info

    def folders(self, url: str) -> Sequence[str]:
        """See `Objects.folders`."""
        with suppress(ObjectNotFoundError), file_errors("read", path_of(url)), os.scandir(path_of(url)) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
        return []

    def get(self, url: str) -> tuple[bytes, str] | None:
        """See `Objects.get`."""
        with suppress(ObjectNotFoundError), file_errors("read", path_of(url)):
            data = path_of(url).read_bytes()
            return data, hashlib.sha256(data).hexdigest()
        return None

    def put(self, url: str, data: bytes | Path, *, tag: str | None = None, owner: str = "") -> bool:  # noqa: ARG002 - files have none
        """See `Objects.put`."""
        if not tag:
            return _write(url, data, replace=tag is None)
        with _locked(path_of(url)):
            found = self.get(url)
            return found is not None and found[1] == tag and _write(url, data, replace=True)

    def delete(self, url: str) -> None:
        """See `Objects.delete`."""
        with file_errors("delete", path_of(url)):
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


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other writers away between a comparison and the write that depends on it."""
    with file_errors("write", path), (path.parent / f".{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _write(url: str, data: bytes | Path, *, replace: bool) -> bool:
    """Write a file whole; false where there is one and it is not to be replaced."""
    upload = FileUpload(url, None, replace=replace)
    try:
        for chunk in chunks_of(data):
            upload.write(chunk)
        upload.commit()
    except StoreConflictError:
        return False
    finally:
        upload.abort()
    return True


def _tag(status: os.stat_result) -> str:
    return f"{status.st_mtime_ns:x}-{status.st_size:x}"
