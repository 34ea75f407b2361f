"""Reading objects out of a store: a folder (`file:///…`) or S3 (`s3://bucket/prefix`), behind one small interface.

Knows nothing of what the objects mean. It cannot write: what is deployed needs no right to.
"""

from __future__ import annotations

import os

from serving.errors import (
    ObjectNotFoundError,
    SettingsError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from typing_extensions import Buffer

    class Store(Protocol):
        """Where artifacts come from.

        Attributes:
            url: the store's URL, for messages.
        """

        url: str

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

        def fetch_changed(self, key: str, max_bytes: int, tag: str) -> tuple[Buffer, str] | None:
            """Read one object and its tag, unless it still has the tag given ("" for none known): then None.

            Raises:
                StoreError: as `fetch`.
            """


__all__ = ["FileStore", "S3Store", "Store", "open_store", "split_store_url"]

# INIT has 10 s in all: what an S3 in trouble may take of them before the function says so.
_RETRIES = 3
_RETRY_SECONDS = 4
_CONNECT_TIMEOUT = "1s"
_READ_TIMEOUT = "8s"


def split_store_url(url: str) -> tuple[str, str, str]:
    """Split a store URL into scheme, bucket ("" for files) and path without slashes at its ends for S3.

    Raises:
        SettingsError: not a `file:///…` or `s3://bucket[/prefix]` URL.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "file" and rest.startswith("/"):
        return scheme, "", rest.rstrip("/") or "/"
    bucket, _, prefix = rest.partition("/")
    if separator and scheme == "s3" and bucket:
        return scheme, bucket, prefix.strip("/")
    raise SettingsError(f"store URL {url!r} is neither file:///path nor s3://bucket/prefix")


def open_store(url: str) -> Store:
    """Open a store for reading; no connection is made yet.

    Raises:
        SettingsError: not a store URL.
    """
    scheme, bucket, path = split_store_url(url)
    return FileStore(url, path) if scheme == "file" else S3Store(url, bucket, path)


class FileStore:
    """A folder. Objects come memory-mapped, so that a bundled model costs no copy."""

    def __init__(self, url: str, path: str) -> None:
        self.url = url
        if "%" in path:
            from urllib.parse import unquote

            path = unquote(path)
        self._root = path

    def fetch_changed(self, key: str, max_bytes: int, tag: str) -> tuple[Buffer, str] | None:
        """Read one file, unless it is the one it was; see `Store.fetch_changed`."""
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
        """Map one file read-only; see `Store.fetch`."""
        path = os.path.join(self._root, key)
        try:
            descriptor = os.open(path, os.O_RDONLY)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise ObjectNotFoundError(f"no file {path}") from error
        except PermissionError as error:
            raise StoreAccessError(f"no right to read {path}") from error
        try:
            size = os.fstat(descriptor).st_size
            _check_size(path, size, max_bytes)
            if not size:
                return b""
            from mmap import ACCESS_READ, mmap

            return mmap(descriptor, size, access=ACCESS_READ)
        except OSError as error:
            raise StoreError(f"cannot read {path}: {error}") from error
        finally:
            os.close(descriptor)


class S3Store:
    """A prefix in an S3 bucket, read through obstore (a Rust client: 10 ms to import where boto3 takes 237).

    Endpoint, region and credentials come from AWS's own environment variables, as everywhere.
    """

    def __init__(self, url: str, bucket: str, prefix: str) -> None:
        from datetime import timedelta

        import obstore
        from obstore.store import S3Store as Client

        self.url = url
        self._get = obstore.get
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        self._client = Client(
            bucket,
            prefix=prefix or None,
            client_options={
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": _READ_TIMEOUT,
            },
            retry_config={"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_SECONDS)},
        )

    def fetch(self, key: str, max_bytes: int) -> Buffer:
        """GET one object; see `Store.fetch`."""
        from obstore.exceptions import BaseError

        try:
            answer = self._get(self._client, key)
            _check_size(f"{self.url}/{key}", answer.meta["size"], max_bytes)
            data: Buffer = answer.bytes()
        except (BaseError, OSError) as error:
            raise _translated(error, f"{self.url}/{key}") from error
        return data

    def fetch_changed(self, key: str, max_bytes: int, tag: str) -> tuple[Buffer, str] | None:
        """GET one object, on condition of its ETag when one is known; see `Store.fetch_changed`."""
        from obstore.exceptions import BaseError, NotModifiedError

        try:
            answer = self._get(self._client, key, options={"if_none_match": tag} if tag else None)
            _check_size(f"{self.url}/{key}", answer.meta["size"], max_bytes)
            return answer.bytes(), answer.meta["e_tag"] or ""
        except NotModifiedError:
            return None
        except (BaseError, OSError) as error:
            raise _translated(error, f"{self.url}/{key}") from error


def _check_size(name: str, size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise StoreError(f"{name} has {size} bytes, at most {max_bytes} were expected")


def _translated(error: Any, name: str) -> StoreError:
    """Obstore's error in our own terms. Its text can name hosts and headers, so it stays in the chained cause."""
    from obstore import exceptions

    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
        return ObjectNotFoundError(f"no object {name}")
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        return StoreAccessError(
            f"S3 refused to read {name}: the function's role needs s3:GetObject on it (and s3:ListBucket to tell "
            "a missing object from a forbidden one)"
        )
    return StoreUnavailableError(f"S3 could not deliver {name} ({type(error).__name__}) within {_RETRIES} retries")
