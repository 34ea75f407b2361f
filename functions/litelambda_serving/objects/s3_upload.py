"""A multipart upload that can be suspended, and becomes visible only if the object does not exist yet."""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any

from litelambda_serving.errors import StoreConflictError
from litelambda_serving.objects.base import UploadState, split_url
from litelambda_serving.objects.errors import LostUploadError
from litelambda_serving.objects.s3_requests import decided, owned_by, put, translated
from litelambda_serving.store.s3_answers import Meaning, meaning_of

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["S3Upload"]

_PARTS_IN_FLIGHT = 3


class S3Upload:
    """A multipart upload whose parts leave in the background; a single PUT when one part is all there is."""

    def __init__(
        self,
        client: Any,
        url: str,
        part_bytes: int,
        state: UploadState | None = None,
        *,
        hold_head: bool = False,
        replace: bool = False,
        owner: str = "",
    ) -> None:
        self._client = client
        self._url = url
        self._bucket, self._key = split_url(url)
        self._part_bytes = part_bytes
        self._hold_head = hold_head
        self._replace = replace
        self._owner = owner
        fields: dict[str, Any] = dict(state.upload) if state else {}
        self._upload_id: str = fields.get("upload_id", "")
        self._etags: dict[int, str] = {int(number): tag for number, tag in fields.get("parts", ())}
        self._resumed = bool(self._upload_id)
        self._head = state.head if state else b""
        self._tail = bytearray(state.tail if state else b"")
        self.size: int = fields.get("size", 0)
        self._in_flight: deque[tuple[int, Future[str]]] = deque()

    @cached_property
    def _executor(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(_PARTS_IN_FLIGHT, thread_name_prefix="upload")

    def write(self, data: bytes | memoryview) -> None:
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
            raise self._reason(error) from error
        finally:
            self._close()

    def suspend(self) -> UploadState:
        """See `Upload.suspend`."""
        self._wait()
        self._close()
        upload = {"upload_id": self._upload_id, "parts": sorted(self._etags.items()), "size": self.size}
        return UploadState(upload, self._head, bytes(self._tail))

    def abort(self) -> None:
        """See `Upload.abort`. An upload that others may resume is left to the bucket's lifecycle rule."""
        self._close()
        if self._upload_id and not self._resumed:
            try:
                self._client.abort_multipart_upload(Bucket=self._bucket, Key=self._key, UploadId=self._upload_id)
            except Exception as error:
                if meaning_of(error) is not Meaning.NO_UPLOAD:
                    raise translated(error, self._url, writing=True) from error
            self._upload_id = ""

    def _put(self, body: bytes, head: bytes | None) -> None:
        if head:
            body = head + body[len(head) :]
        if not put(self._client, self._url, body, tag=None if self._replace else "", owner=self._owner):
            raise StoreConflictError(f"{self._url} exists already")

    def _send(self, part: bytes, number: int = 0) -> None:
        """Upload a part in the background; wait while too many are on their way, so that memory stays flat."""
        if not self._upload_id:
            try:
                answer = decided(self._create)
            except Exception as error:
                raise translated(error, self._url, writing=True) from error
            self._upload_id = answer["UploadId"]
        if not number:
            taken = [*self._etags, *(pending for pending, _ in self._in_flight), int(self._hold_head)]
            number = max(taken) + 1
        while len(self._in_flight) >= _PARTS_IN_FLIGHT:
            self._collect()
        self._in_flight.append((number, self._executor.submit(self._upload_part, number, part)))

    def _create(self) -> Any:
        return self._client.create_multipart_upload(Bucket=self._bucket, Key=self._key, **owned_by(self._owner))

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
            raise self._reason(error) from error

    def _wait(self) -> None:
        while self._in_flight:
            self._collect()

    def _close(self) -> None:
        if "_executor" in self.__dict__:
            self._executor.shutdown(wait=True, cancel_futures=True)
            del self.__dict__["_executor"]
        self._in_flight.clear()

    def _reason(self, error: Exception) -> Exception:
        """Why a part or the whole was refused: another writer committed, or what was resumed is gone."""
        meaning = meaning_of(error)
        if meaning is Meaning.CHANGED:
            return StoreConflictError(f"{self._url} exists already")
        if meaning is Meaning.NO_UPLOAD:
            return LostUploadError(f"the suspended upload of {self._url} is gone")
        return translated(error, self._url, writing=True)
