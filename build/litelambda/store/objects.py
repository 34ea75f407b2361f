"""Objects in a folder or in S3, written so that no writer ever undoes another's work.

Two writes exist: create-only, and replace-if-unchanged. Knows nothing of models, versions or manifests.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol
from urllib.parse import unquote

from litelambda_serving.errors import (
    ObjectNotFoundError,
    StoreAccessError,
    StoreConflictError,
    StoreError,
    StoreUnavailableError,
)
from litelambda_serving.store import split_store_url
from litelambda_serving.store.part_files import create_part
from litelambda_serving.store.s3_answers import CONFLICT_ATTEMPTS, Meaning, error_code, meaning_of, was_sent_again

if TYPE_CHECKING:
    from botocore.exceptions import ClientError
    from mypy_boto3_s3 import S3Client

_CHUNK_BYTES = 1024 * 1024
_CONFLICT_PAUSE_S = 0.1  # before the second try of a write that met another one, twice that before the third, …


class ObjectStore(Protocol):
    """Where objects are kept under keys such as `mnist/3/manifest.json`.

    Every method raises StoreAccessError where rights are missing, StoreUnavailableError where the store is out of
    reach, StoreError otherwise.
    """

    url: str

    def folders(self, prefix: str) -> list[str]:
        """Names of what has objects below it, directly below a prefix ("" or ending in "/")."""

    def keys(self, prefix: str) -> list[str]:
        """All keys below a prefix."""

    def read(self, key: str) -> tuple[bytes, str]:
        """An object and its tag, which changes with its content.

        Raises:
            ObjectNotFoundError: there is none at that key.
        """

    def create(self, key: str, content: bytes | Path) -> None:
        """Write an object that must not exist; it appears whole or not at all.

        Raises:
            StoreConflictError: it exists.
        """

    def replace(self, key: str, content: bytes, tag: str | None) -> None:
        """Write an object that must still have this tag, or none where that is None.

        Raises:
            StoreConflictError: another writer was there in between.
        """


def open_objects(url: str) -> ObjectStore:
    """Open a `file:///…` or `s3://bucket/prefix` store for reading and writing.

    Raises:
        SettingsError: not a store URL.
    """
    scheme, bucket, path = split_store_url(url)
    return FileObjects(url, Path(unquote(path))) if scheme == "file" else S3Objects(url, bucket, path)


class FileObjects:
    """Objects as files below a folder."""

    def __init__(self, url: str, root: Path) -> None:
        self.url = url
        self._root = root

    def folders(self, prefix: str) -> list[str]:
        """See `ObjectStore.folders`."""
        with _file_errors(self.url), contextlib.suppress(FileNotFoundError, NotADirectoryError):
            return sorted(each.name for each in os.scandir(self._root / prefix) if each.is_dir())
        return []

    def keys(self, prefix: str) -> list[str]:
        """See `ObjectStore.keys`."""
        with _file_errors(self.url):
            files = (file for file in (self._root / prefix).rglob("*") if file.is_file())
            return sorted(file.relative_to(self._root).as_posix() for file in files if not file.name.startswith("."))

    def read(self, key: str) -> tuple[bytes, str]:
        """See `ObjectStore.read`."""
        with _file_errors(f"{self.url}/{key}"):
            try:
                content = (self._root / key).read_bytes()
            except (FileNotFoundError, NotADirectoryError):
                raise ObjectNotFoundError(f"{self.url}/{key} does not exist") from None
        return content, hashlib.sha256(content).hexdigest()

    def create(self, key: str, content: bytes | Path) -> None:
        """See `ObjectStore.create`."""
        with _file_errors(f"{self.url}/{key}"), self._written_aside(key, content) as aside:
            try:
                os.link(aside, self._root / key)  # unlike rename, refuses to replace
            except FileExistsError:
                raise StoreConflictError(f"{self.url}/{key} exists") from None

    def replace(self, key: str, content: bytes, tag: str | None) -> None:
        """See `ObjectStore.replace`."""
        path = self._root / key
        with _file_errors(f"{self.url}/{key}"), self._locked(path), self._written_aside(key, content) as aside:
            try:
                found: str | None = self.read(key)[1]
            except ObjectNotFoundError:
                found = None
            if found != tag:
                raise StoreConflictError(f"{self.url}/{key} was changed by another writer")
            aside.rename(path)

    @contextlib.contextmanager
    def _written_aside(self, key: str, content: bytes | Path) -> Iterator[Path]:
        """A finished copy beside the key under a name no reader looks at; afterwards the folder is on disk too."""
        path = self._root / key
        folder = path.parent
        folder.mkdir(parents=True, exist_ok=True)
        aside, descriptor = create_part(path)
        with os.fdopen(descriptor, "wb") as file:  # open, and so locked, until the copy has its name
            try:
                for chunk in _chunks(content):
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                yield aside
            finally:
                aside.unlink(missing_ok=True)
        directory = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)

    @contextlib.contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        path.parent.mkdir(parents=True, exist_ok=True)
        with (path.parent / f".{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield


class S3Objects:
    """Objects in a bucket below a prefix."""

    def __init__(self, url: str, bucket: str, prefix: str) -> None:
        self.url = url
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._made: S3Client | None = None

    def folders(self, prefix: str) -> list[str]:
        """See `ObjectStore.folders`."""
        start = self._prefix + prefix
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=start, Delimiter="/"
            )
            found = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes", ())]
        return sorted(name.removeprefix(start).rstrip("/") for name in found)

    def keys(self, prefix: str) -> list[str]:
        """See `ObjectStore.keys`."""
        with self._errors(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._prefix + prefix
            )
            return sorted(each["Key"].removeprefix(self._prefix) for page in pages for each in page.get("Contents", ()))

    def read(self, key: str) -> tuple[bytes, str]:
        """See `ObjectStore.read`."""
        with self._errors(key):
            answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
            return answer["Body"].read(), answer["ETag"]

    def create(self, key: str, content: bytes | Path) -> None:
        """See `ObjectStore.create`."""
        from botocore.exceptions import ClientError

        digest = hashlib.sha256()
        for chunk in _chunks(content):
            digest.update(chunk)
        with contextlib.ExitStack() as stack:
            body: bytes | IO[bytes] = content if isinstance(content, bytes) else stack.enter_context(content.open("rb"))
            stack.enter_context(self._errors(key))
            checksum = base64.b64encode(digest.digest()).decode()
            try:
                self._put(key, body, IfNoneMatch="*", ChecksumSHA256=checksum)
            except ClientError as error:
                # An earlier try of this very request may have stored the object, and its answer been lost.
                is_ours = meaning_of(error) is Meaning.CHANGED and was_sent_again(error)
                if not is_ours or self._checksum(key) != checksum:
                    raise

    def replace(self, key: str, content: bytes, tag: str | None) -> None:
        """See `ObjectStore.replace`."""
        condition: Any = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        with self._errors(key):
            self._put(key, content, **condition)

    def _put(self, key: str, body: bytes | IO[bytes], **options: Any) -> None:
        """Write an object; a write that met another one, which decides nothing, is tried again."""
        from botocore.exceptions import ClientError

        for attempt in range(1, CONFLICT_ATTEMPTS + 1):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._prefix + key, Body=body, **options)
            except ClientError as error:
                if meaning_of(error) is not Meaning.UNDECIDED or attempt == CONFLICT_ATTEMPTS:
                    raise
            else:
                return
            if not isinstance(body, bytes):
                body.seek(0)
            time.sleep(_CONFLICT_PAUSE_S * 2 ** (attempt - 1))

    def _checksum(self, key: str) -> str:
        """The SHA-256 of an object, in base64 as S3 has it."""
        digest = hashlib.sha256()
        answer = self._client.get_object(Bucket=self._bucket, Key=self._prefix + key)
        for chunk in answer["Body"].iter_chunks(_CHUNK_BYTES):
            digest.update(chunk)
        return base64.b64encode(digest.digest()).decode()

    @property
    def _client(self) -> S3Client:
        if self._made is None:
            import boto3
            from botocore.config import Config

            self._made = boto3.client("s3", config=Config(retries={"mode": "standard"}))
        return self._made

    @contextlib.contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        """Turn botocore's errors into the store's own."""
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        where = f"{self.url}/{key}"
        try:
            yield
        except ClientError as error:
            raise _from_answer(error, where) from error
        except NoCredentialsError as error:
            raise StoreAccessError(f"{where}: no AWS credentials were found") from error
        except BotoCoreError as error:
            raise StoreUnavailableError(f"{where}: {error}") from error


def _from_answer(error: ClientError, where: str) -> StoreError:
    code, message = error_code(error), error.response.get("Error", {}).get("Message", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    answer = f"{where}: S3 answered {status} {code}"
    meaning = meaning_of(error)
    known = {
        Meaning.NO_BUCKET: StoreError(f"{where}: the bucket does not exist"),
        Meaning.MISSING: ObjectNotFoundError(f"{where} does not exist"),
        Meaning.CHANGED: StoreConflictError(f"{where}: {message}"),
        Meaning.FORBIDDEN: StoreAccessError(f"{answer}: check the credentials and their rights"),
        Meaning.UNDECIDED: StoreUnavailableError(
            f"{answer}: other writes kept S3 from deciding on this one, try again"
        ),
    }
    if meaning in known:
        return known[meaning]
    if meaning is Meaning.UNAVAILABLE and (status >= 500 or status == 429):
        return StoreUnavailableError(answer)
    return StoreError(f"{answer} {message}")


@contextlib.contextmanager
def _file_errors(where: str) -> Iterator[None]:
    try:
        yield
    except PermissionError as error:
        raise StoreAccessError(f"{where}: {error.strerror}") from error
    except OSError as error:
        raise StoreError(f"{where}: {error}") from error


def _chunks(content: bytes | Path) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            yield chunk
