"""Inputs and outputs in S3, through boto3: it is in the Lambda runtime, and it can do conditional multipart uploads."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from litelambda_serving.errors import StoreUnavailableError
from litelambda_serving.scoring.errors import InputNotFoundError
from litelambda_serving.scoring.storage import ObjectInfo, split_url
from litelambda_serving.scoring.storage.s3_errors import is_cut, translated
from litelambda_serving.scoring.storage.s3_upload import OWNER, S3Upload, owned_by
from litelambda_serving.store.s3_answers import CONFLICT_ATTEMPTS, Meaning, error_code, meaning_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litelambda_serving.scoring.storage import UploadState

__all__ = ["S3Objects"]

_ATTEMPTS = 5  # of one request, by the client; SlowDown and 5xx with growing, jittered pauses
_BODY_ATTEMPTS = 4  # of one range whose body is cut off
_CONNECTIONS = 16
_CONFLICT_PAUSE_S = 0.05  # before the second try of a write that met another one, twice that before the third, …
_UNSAID = {"301", "400", "403"}  # what a HEAD, whose answers have no body, says of many a reason


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
            reason = self._reason(error, url, version)
            if isinstance(reason, InputNotFoundError):
                return None
            raise reason from error
        version_id = answer.get("VersionId") or ""
        return ObjectInfo(
            url,
            answer["ContentLength"],
            answer["ETag"].strip('"'),
            "" if version_id == "null" else version_id,
            answer.get("Metadata", {}).get(OWNER, ""),
        )

    def _reason(self, error: Exception, url: str, version: dict[str, str]) -> Exception:
        """Why a HEAD failed: where its status says too little, a GET is asked for its words."""
        if error_code(error) not in _UNSAID:
            return translated(error, url)
        bucket, key = split_url(url)
        try:
            self.client.get_object(Bucket=bucket, Key=key, Range="bytes=0-0", **version)["Body"].close()
        except Exception as said:  # noqa: BLE001 - whatever it is, it says more
            return translated(said, url)
        return translated(error, url)

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
                reason = translated(error, info.url)
                if attempt < _BODY_ATTEMPTS and is_cut(error):
                    continue
                raise reason from error
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
            raise translated(error, url) from error

    def get(self, url: str) -> tuple[bytes, str] | None:
        """See `Objects.get`."""
        bucket, key = split_url(url)
        try:
            answer = self.client.get_object(Bucket=bucket, Key=key)
            return answer["Body"].read(), answer["ETag"].strip('"')
        except Exception as error:
            reason = translated(error, url)
            if isinstance(reason, InputNotFoundError):
                return None
            raise reason from error

    def put(self, url: str, data: bytes, *, tag: str | None = None, owner: str = "") -> bool:
        """See `Objects.put`."""
        condition = {} if tag is None else {"IfMatch": f'"{tag}"'} if tag else {"IfNoneMatch": "*"}
        try:
            self.write("put_object", url, Body=data, **condition, **owned_by(owner))
        except Exception as error:
            meaning = meaning_of(error)
            if (tag is not None and meaning is Meaning.CHANGED) or (tag and meaning is Meaning.MISSING):
                return False
            raise translated(error, url, writing=True) from error
        return True

    def write(self, operation: str, url: str, **arguments: Any) -> Any:
        """Call an operation of the client; one that met another writer's, which decides nothing, is tried again.

        Raises:
            ClientError: and whatever else the client raises.
        """
        bucket, key = split_url(url)
        for attempt in range(1, CONFLICT_ATTEMPTS + 1):
            try:
                return getattr(self.client, operation)(Bucket=bucket, Key=key, **arguments)
            except Exception as error:
                if meaning_of(error) is not Meaning.UNDECIDED or attempt == CONFLICT_ATTEMPTS:
                    raise
                time.sleep(_CONFLICT_PAUSE_S * 2 ** (attempt - 1))
        raise AssertionError("not reached")

    def delete(self, url: str) -> None:
        """See `Objects.delete`."""
        bucket, key = split_url(url)
        try:
            self.client.delete_object(Bucket=bucket, Key=key)
        except Exception as error:
            raise translated(error, url, writing=True) from error

    def upload(
        self,
        url: str,
        part_bytes: int,
        state: UploadState | None = None,
        *,
        hold_head: bool = False,
        replace: bool = False,
        owner: str = "",
    ) -> S3Upload:
        """See `Objects.upload`."""
        return S3Upload(self, url, part_bytes, state, hold_head=hold_head, replace=replace, owner=owner)
