"""Inputs and outputs in S3, through boto3: it is in the Lambda runtime, and it can do conditional multipart uploads."""

from __future__ import annotations

import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from serving.errors import StoreAccessError, StoreUnavailableError
from serving.scoring.errors import InputNotFoundError, InputReplacedError, LostUploadError, OutputExistsError
from serving.scoring.storage import ObjectInfo, UploadState

if TYPE_CHECKING:
    from collections.abc import Iterator
    from concurrent.futures import Future

__all__ = ["S3Objects", "S3Upload"]

_ATTEMPTS = 5  # of one request, by the client; SlowDown and 5xx with growing, jittered pauses
_BODY_ATTEMPTS = 4  # of one range whose body is cut off
_CONNECTIONS = 16
_PARTS_IN_FLIGHT = 3
_MISSING = {"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket", "NotFound"}
_FORBIDDEN = {"403", "401", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_LOST = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
_CHANGED = {"412", "PreconditionFailed", "416", "InvalidRange"}
_GONE = {"NoSuchUpload", "InvalidPart"}


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of an S3 URL."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


class S3Objects:
    """See `storage.Objects`."""

    @cached_property
    def client(self) -> Any:
        """The client; made on first use."""
        import boto3
        from botocore.config import Config

        retries: Any = {"mode": "standard", "max_attempts": _ATTEMPTS}
        config = Config(
            retries=retries, max_pool_connections=_CONNECTIONS, connect_timeout=5, read_timeout=30, tcp_keepalive=True
        )
        return boto3.session.Session().client("s3", config=config)

    def head(self, url: str, version_id: str = "") -> ObjectInfo | None:
        """See `Objects.head`."""
        bucket, key = split_url(url)
        version = {"VersionId": version_id} if version_id else {}
        try:
            answer = self.client.head_object(Bucket=bucket, Key=key, **version)
        except Exception as error:
            translated = _translated(error, url)
            if isinstance(translated, InputNotFoundError):
                return None
            raise translated from error
        version_id = answer.get("VersionId") or ""
        return ObjectInfo(
            url, answer["ContentLength"], answer["ETag"].strip('"'), "" if version_id == "null" else version_id
        )

    def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """See `Objects.read`."""
        if stop <= start:
            return b""
        bucket, key = split_url(info.url)
        version = {"VersionId": info.version_id} if info.version_id else {}
        for attempt in range(1, _BODY_ATTEMPTS + 1):
            try:
                answer = self.client.get_object(
                    Bucket=bucket, Key=key, Range=f"bytes={start}-{stop - 1}", IfMatch=f'"{info.tag}"', **version
                )
                data: bytes = answer["Body"].read()
            except Exception as error:
                translated = _translated(error, info.url)
                if attempt < _BODY_ATTEMPTS and _is_cut(error):
                    continue
                raise translated from error
            if len(data) == stop - start:
                break
        else:
            raise StoreUnavailableError(f"S3 cut {info.url} short {_BODY_ATTEMPTS} times at bytes {start}-{stop - 1}")
        return data

    def list(self, url: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Objects.list`."""
        bucket, prefix = split_url(url)
        after = {"StartAfter": split_url(start_after)[1]} if start_after else {}
        try:
            for page in self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **after):
                for entry in page.get("Contents", ()):
                    yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))
        except Exception as error:
            raise _translated(error, url) from error

    def get(self, url: str) -> tuple[bytes, str] | None:
        """See `Objects.get`."""
        bucket, key = split_url(url)
        try:
            answer = self.client.get_object(Bucket=bucket, Key=key)
            return answer["Body"].read(), answer["ETag"].strip('"')
        except Exception as error:
            translated = _translated(error, url)
            if isinstance(translated, InputNotFoundError):
                return None
            raise translated from error

    def put(self, url: str, data: bytes, *, tag: str | None = None) -> bool:
        """See `Objects.put`."""
        bucket, key = split_url(url)
        condition = {} if tag is None else {"IfMatch": f'"{tag}"'} if tag else {"IfNoneMatch": "*"}
        try:
            self.client.put_object(Bucket=bucket, Key=key, Body=data, **condition)
        except Exception as error:
            if tag is not None and _code(error) in _LOST | _MISSING:
                return False
            raise _translated(error, url) from error
        return True

    def delete(self, url: str) -> None:
        """See `Objects.delete`."""
        bucket, key = split_url(url)
        try:
            self.client.delete_object(Bucket=bucket, Key=key)
        except Exception as error:
            raise _translated(error, url) from error

    def upload(
        self,
        url: str,
        part_bytes: int,
        state: UploadState | None = None,
        *,
        hold_head: bool = False,
        replace: bool = False,
    ) -> S3Upload:
        """See `Objects.upload`."""
        return S3Upload(self, url, part_bytes, state, hold_head=hold_head, replace=replace)


class S3Upload:
    """A multipart upload whose parts leave in the background; a single PUT when one part is all there is."""

    def __init__(
        self,
        objects: S3Objects,
        url: str,
        part_bytes: int,
        state: UploadState | None = None,
        *,
        hold_head: bool = False,
        replace: bool = False,
    ) -> None:
        self._objects = objects
        self._client = objects.client
        self._url = url
        self._bucket, self._key = split_url(url)
        self._part_bytes = part_bytes
        self._hold_head = hold_head
        self._replace = replace
        fields: dict[str, Any] = dict(state.upload) if state else {}
        self._upload_id: str = fields.get("upload_id", "")
        self._etags: dict[int, str] = {int(number): tag for number, tag in fields.get("parts", ())}
        self._resumed = bool(self._upload_id)
        self._head = state.head if state else b""
        self._tail = bytearray(state.tail if state else b"")
        self.size: int = fields.get("size", 0)
        self._in_flight: deque[tuple[int, Future[str]]] = deque()
        self._lock = threading.Lock()

    @cached_property
    def _executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_PARTS_IN_FLIGHT, thread_name_prefix="upload")

    def write(self, data: bytes) -> None:
        """See `Upload.write`."""
        self._tail += data
        self.size += len(data)
        while len(self._tail) > self._part_bytes:
            part = bytes(self._tail[: self._part_bytes])
            del self._tail[: self._part_bytes]
            if self._hold_head and not self._head:
                self._head = part
            else:
                self._send(part)

    def commit(self, head: bytes | None = None) -> None:
        """See `Upload.commit`."""
        if not self._head and not self._upload_id:
            self._put(bytes(self._tail), head)
            return
        if self._hold_head:
            self._send((head or b"") + self._head[len(head or b"") :], number=1)
        if self._tail:
            self._send(bytes(self._tail))
        self._wait()
        parts = [{"PartNumber": number, "ETag": tag} for number, tag in sorted(self._etags.items())]
        condition = {} if self._replace else {"IfNoneMatch": "*"}
        try:
            self._client.complete_multipart_upload(
                Bucket=self._bucket,
                Key=self._key,
                UploadId=self._upload_id,
                MultipartUpload={"Parts": parts},
                **condition,
            )
        except Exception as error:
            raise self._lost(error) from error
        finally:
            self._close()

    def suspend(self) -> UploadState:
        """See `Upload.suspend`."""
        self._wait()
        self._close()
        upload = {"upload_id": self._upload_id, "parts": sorted(self._etags.items()), "size": self.size}
        return UploadState(upload, self._head, bytes(self._tail))

    def abort(self) -> None:
        """See `Upload.abort`. An upload that others may go on with is left to the bucket's lifecycle rule."""
        self._close()
        if self._upload_id and not self._resumed:
            try:
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)
            except Exception as error:
                if _code(error) not in _GONE:
                    raise _translated(error, self._url) from error
            self._upload_id = ""

    def _put(self, body: bytes, head: bytes | None) -> None:
        if head:
            body = head + body[len(head) :]
        if not self._objects.put(self._url, body, tag=None if self._replace else ""):
            raise OutputExistsError(f"{self._url} exists already")

    def _send(self, part: bytes, number: int = 0) -> None:
        """Upload a part in the background; wait while too many are on their way, so that memory stays flat."""
        if not self._upload_id:
            try:
                answer = self._client.create_multipart_upload(Bucket=self._bucket, Key=self._key)
            except Exception as error:
                raise _translated(error, self._url) from error
            self._upload_id = answer["UploadId"]
        if not number:
            taken = [*self._etags, *(pending for pending, _ in self._in_flight), int(self._hold_head)]
            number = max(taken) + 1
        while len(self._in_flight) >= _PARTS_IN_FLIGHT:
            self._collect()
        self._in_flight.append((number, self._executor.submit(self._upload_part, number, part)))

    def _upload_part(self, number: int, part: bytes) -> str:
        answer = self._client.upload_part(
            Bucket=self._bucket, Key=self._key, UploadId=self._upload_id, PartNumber=number, Body=part
        )
        tag: str = answer["ETag"]
        return tag

    def _collect(self) -> None:
        number, future = self._in_flight.popleft()
        try:
            self._etags[number] = future.result()
        except Exception as error:
            raise self._lost(error) from error

    def _wait(self) -> None:
        while self._in_flight:
            self._collect()

    def _close(self) -> None:
        if "_executor" in self.__dict__:
            self._executor.shutdown(wait=True, cancel_futures=True)
            del self.__dict__["_executor"]
        self._in_flight.clear()

    def _lost(self, error: Exception) -> Exception:
        """Another run committed, or the upload that was gone on with is no more."""
        code = _code(error)
        if code in {"412", "PreconditionFailed"} or (code in _GONE and self._objects.head(self._url)):
            return OutputExistsError(f"{self._url} exists already")
        if code in _GONE:
            return LostUploadError(f"the suspended upload of {self._url} is gone")
        return _translated(error, self._url)


def _code(error: Exception) -> str:
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def _is_cut(error: Exception) -> bool:
    """Whether a body stopped early: the request succeeded, so the client does not try again by itself."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    return isinstance(error, (IncompleteReadError, HTTPClientError, OSError))


def _translated(error: Exception, url: str) -> Exception:
    """The client's error in our own terms."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        return _translated_code(_code(error), url)
    if isinstance(error, NoCredentialsError):
        return StoreAccessError(f"no credentials for {url}")
    if isinstance(error, (BotoCoreError, OSError)):
        return StoreUnavailableError(f"S3 could not serve {url} ({type(error).__name__})")
    return error


def _translated_code(code: str, url: str) -> Exception:
    if code in _MISSING:
        return InputNotFoundError(f"there is no {url}")
    if code in _CHANGED:
        return InputReplacedError(f"{url} was replaced: it is no longer the version that was asked for")
    if code in _FORBIDDEN:
        return StoreAccessError(f"S3 refused {url} ({code}): the role needs the right to read or write it")
    return StoreUnavailableError(f"S3 could not serve {url} ({code})")
