"""Reading objects from a store: a folder (`file:///…`) or a cloud's (`s3://bucket/prefix`), behind one small interface.

It does not know what the objects mean. It cannot write: what is deployed needs no right to.
"""

from __future__ import annotations

import os

from litelambda_serving.digest import hexdigest
from litelambda_serving.errors import (
    ObjectNotFoundError,
    SettingsError,
    StoreAccessError,
    StoreError,
)
from litelambda_serving.settings import TRUST_SETTINGS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from typing_extensions import Buffer

    from litelambda_serving.trust import Trust

    Sink = Callable[[Buffer], None]

    class Store(Protocol):
        """Where artifacts come from.

        Attributes:
            url: the store's URL, for messages.
            trust: what must be true of a version that is fetched from it; None where nothing is asked.
        """

        url: str
        trust: Trust | None

        def fetch(self, key: str, max_bytes: int) -> Buffer:
            """Read one object whole.

            Args:
                key: path below the store's URL, without a leading slash.
                max_bytes: refuse anything larger before it is read.

            Raises:
                ObjectNotFoundError: there is none at that key.
                StoreAccessError: the credentials, or their rights, were refused.
                StoreUnavailableError: a transient failure, retries included.
                StoreError: larger than `max_bytes`, or a failure of another kind.
            """

        def fetch_digested(self, key: str, max_bytes: int, sink: Sink | None = None) -> tuple[Buffer, str]:
            """Read one object whole, and its SHA-256 in hex, computed while it arrives.

            Args:
                key: see `fetch`.
                max_bytes: see `fetch`.
                sink: called with the bytes in their order, as they arrive.

            Raises:
                StoreError: as `fetch`.
            """

        def fetch_changed(self, key: str, max_bytes: int, tag: str) -> tuple[Buffer, str] | None:
            """Read one object and its tag, unless it still has the tag given ("" for none known): then None.

            Raises:
                StoreError: as `fetch`.
            """

        def list_folders(self) -> list[str]:
            """Names of the folders at the store's top, sorted.

            Raises:
                StoreError: as `fetch`.
            """

        def reopen(self) -> None:
            """Forget connections and credentials, for a process that was restored from a snapshot."""


__all__ = ["FileStore", "Store", "check_bucket", "open_store", "split_store_url"]


_MAPPED_BYTES = 64 * 1024
"""Up to here a file is read even out of the package; mapping costs more than it saves."""


def split_store_url(url: str) -> tuple[str, str, str]:
    """Split a store URL into scheme, bucket ("" for files) and path, without slashes at its ends in a bucket.

    Raises:
        SettingsError: not the URL of a store, or a bucket or prefix that is not taken.

    >>> split_store_url("s3://bucket/models/")
    ('s3', 'bucket', 'models')
    >>> split_store_url("https://account.blob.core.windows.net/container/models")
    ('az', 'container@account', 'models')
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "file" and rest.startswith("/"):
        return scheme, "", rest.rstrip("/") or "/"
    bucket, _, prefix = rest.partition("/")
    if separator and scheme in ("s3", "gs") and bucket:
        check_bucket(url, bucket)
        return scheme, bucket, _check_prefix(url, prefix)
    if separator and scheme in ("az", "abfs", "abfss", "https"):
        from litelambda_serving.store.clouds import split_azure_url

        place, path = split_azure_url(url)
        return "az", place, _check_prefix(url, path)
    raise SettingsError(
        f"store URL {url!r}: expected file:///path, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix"
    )


def _check_prefix(url: str, prefix: str) -> str:
    """A prefix without slashes at its ends.

    Raises:
        SettingsError: it has a segment that object stores and paths understand in different ways.
    """
    path = prefix.strip("/")
    if path and not {"", ".", ".."}.isdisjoint(path.split("/")):
        raise SettingsError(f"store URL {url!r} has '//', '.' or '..' in its prefix: leave them out")
    return path


def check_bucket(url: str, bucket: str) -> None:
    """Refuse buckets whose names or whose ways differ from those of general purpose buckets.

    Raises:
        SettingsError: it is the ARN of an access point, or a directory bucket (S3 Express One Zone).
    """
    if bucket.startswith("arn:"):
        raise SettingsError(f"{url!r} has an ARN in a bucket's place: give the bucket, or the access point's alias")
    if bucket.endswith(("--x-s3", "--xa-s3")):
        raise SettingsError(f"{url!r} is in a directory bucket (S3 Express One Zone): use a general purpose bucket")


def open_store(url: str) -> Store:
    """Open a store for reading; no connection is made yet.

    What the environment says of signatures, versions and keys holds for every version that is fetched from it.

    Raises:
        SettingsError: not a store URL, or one of those settings is impossible.
    """
    scheme, bucket, path = split_store_url(url)
    store: Store
    if scheme == "file":
        store = FileStore(url, path)
    elif scheme == "s3":
        from litelambda_serving.s3_store import S3Store

        store = S3Store(url, bucket, path)
    else:
        from litelambda_serving.store.clouds import CloudStore

        store = CloudStore(url, scheme, bucket, path)
    if any(os.environ.get(name) for name in TRUST_SETTINGS):
        from litelambda_serving.trust import Trust

        store.trust = Trust.from_environment(os.environ)
    return store


class FileStore:
    """A folder.

    What was verified is what is run: a model is read into its own memory, so that a later write to its file does not
    change what is served. Only the package of a deployed function, which is immutable, is mapped: there a
    bundled model costs no copy.
    """

    trust: Trust | None = None

    def __init__(self, url: str, path: str) -> None:
        self.url = url
        if "%" in path:
            from urllib.parse import unquote

            path = unquote(path)
        self._root = path

    def reopen(self) -> None:
        """Do nothing: nothing is kept open; see `Store.reopen`."""

    def fetch_digested(self, key: str, max_bytes: int, sink: Sink | None = None) -> tuple[Buffer, str]:
        """Read or map one file and hash it; see `Store.fetch_digested`."""
        data = self._read(key, max_bytes, _load)
        if sink is not None:
            sink(data)
        return data, hexdigest(data)

    def list_folders(self) -> list[str]:
        """Name the folders; see `Store.list_folders`."""
        try:
            with os.scandir(self._root) as entries:
                return sorted(entry.name for entry in entries if entry.is_dir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise StoreAccessError(f"cannot list {self._root}: {error}") from error

    def fetch_changed(self, key: str, max_bytes: int, tag: str) -> tuple[Buffer, str] | None:
        """Read one file unless it has not changed; see `Store.fetch_changed`."""
        try:
            status = os.stat(os.path.join(self._root, key))
        except OSError:
            current = ""  # `fetch` says what is wrong
        else:
            # A writer replaces the file whole, so that its inode changes even within one tick of the clock.
            current = f"{status.st_ino}-{status.st_mtime_ns}-{status.st_size}"
        if tag and tag == current:
            return None
        return self.fetch(key, max_bytes), current

    def fetch(self, key: str, max_bytes: int) -> Buffer:
        """Read one file; see `Store.fetch`."""
        return self._read(key, max_bytes, _read_whole)

    def _read(self, key: str, max_bytes: int, read: Callable[[int, int, str], Buffer]) -> Buffer:
        """Open a file and have `read` take its bytes: it is given the descriptor, the size and the path."""
        path = os.path.join(self._root, key)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectNotFoundError(f"no file {path}") from error
        except PermissionError as error:
            raise StoreAccessError(f"no right to read {path}") from error
        try:
            size = os.fstat(descriptor).st_size
            if size > max_bytes:
                raise StoreError(f"{path} has {size} bytes, at most {max_bytes} were expected")
            return read(descriptor, size, path)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error}") from error
        finally:
            os.close(descriptor)


def _load(descriptor: int, size: int, path: str) -> Buffer:
    """A model's bytes, which cannot be changed from here on."""
    if size <= _MAPPED_BYTES:
        return _read_whole(descriptor, size, path)
    package = os.environ.get("LAMBDA_TASK_ROOT")
    if package and os.path.realpath(path).startswith(os.path.realpath(package) + os.sep):
        from mmap import ACCESS_READ, mmap

        from litelambda_serving.store.memory import check_fits

        check_fits(path, size)
        return mmap(descriptor, size, access=ACCESS_READ)
    from litelambda_serving.store.memory import allocate

    buffer = allocate(path, size)
    _fill(descriptor, memoryview(buffer), path)
    return buffer


def _read_whole(descriptor: int, size: int, path: str) -> Buffer:
    buffer = bytearray(size)
    _fill(descriptor, memoryview(buffer), path)
    return buffer


def _fill(descriptor: int, view: memoryview, path: str) -> None:
    """Read until `view` is full.

    Raises:
        StoreError: the file became shorter meanwhile.
    """
    position = 0
    while position < len(view):
        count = os.readv(descriptor, [view[position:]])
        if not count:
            raise StoreError(f"{path} became shorter while it was read: {position} of {len(view)} bytes were left")
        position += count
