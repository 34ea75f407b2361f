"""Objects in S3."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from litelambda_serving.errors import ObjectNotFoundError
from litelambda_serving.objects.base import ObjectInfo, split_url
from litelambda_serving.objects.s3_requests import OWNER, fetch, make_client, put, translated
from litelambda_serving.objects.s3_upload import S3Upload
from litelambda_serving.store.s3_answers import error_code

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from litelambda_serving.objects.base import UploadState

__all__ = ["S3Objects"]

_UNSAID = {"301", "400", "403"}  # what a HEAD, whose answers have no body, says of many a reason


class S3Objects:
    """See `base.Objects`."""

    @cached_property
    def client(self) -> Any:
        """The client; made on first use."""
        return make_client()

    def head(self, url: str, version_id: str = "") -> ObjectInfo | None:
        """See `Objects.head`."""
        bucket, key = split_url(url)
        version = {"VersionId": version_id} if version_id else {}
        try:
            answer = self.client.head_object(Bucket=bucket, Key=key, **version)
        except Exception as error:
            reason = self._reason(error, url, version)
            if isinstance(reason, ObjectNotFoundError):
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
        version = {"VersionId": info.version_id} if info.version_id else {}
        byte_range = f"bytes={start}-{stop - 1}"
        return fetch(self.client, info.url, Range=byte_range, IfMatch=f'"{info.tag}"', **version)[0]

    def list(self, url: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Objects.list`."""
        bucket = split_url(url)[0]
        after = {"StartAfter": split_url(start_after)[1]} if start_after else {}
        for page in self._pages(url, **after):
            for entry in page.get("Contents", ()):
                yield ObjectInfo(f"s3://{bucket}/{entry['Key']}", entry["Size"], entry["ETag"].strip('"'))

    def folders(self, url: str) -> Sequence[str]:
        """See `Objects.folders`."""
        found = [each for page in self._pages(url, Delimiter="/") for each in page.get("CommonPrefixes", ())]
        return sorted(each["Prefix"].rstrip("/").rpartition("/")[2] for each in found)

    def _pages(self, url: str, **arguments: str) -> Iterator[dict[str, Any]]:
        bucket, prefix = split_url(url)
        try:
            yield from self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix, **arguments)
        except Exception as error:
            raise translated(error, url) from error

    def get(self, url: str) -> tuple[bytes, str] | None:
        """See `Objects.get`."""
        try:
            return fetch(self.client, url)
        except ObjectNotFoundError:
            return None

    def put(self, url: str, data: bytes | Path, *, tag: str | None = None, owner: str = "") -> bool:
        """See `Objects.put`."""
        return put(self.client, url, data, tag=tag, owner=owner)

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
        return S3Upload(self.client, url, part_bytes, state, hold_head=hold_head, replace=replace, owner=owner)
