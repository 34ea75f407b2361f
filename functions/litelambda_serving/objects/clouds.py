"""Objects in Google Cloud Storage and Azure Blob Storage, through obstore: what publishing needs of them.

Conditional writes are the service's own: a generation in Google's, an ETag in Azure's. The client does not send them
again by itself: only who knows that a request was sent twice can say whose the object is. Batch scoring, which
suspends uploads, is not among what these can do.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda_serving.errors import ObjectNotFoundError, SettingsError, StoreError, StoreUnavailableError
from litelambda_serving.objects.base import ObjectInfo
from litelambda_serving.objects.errors import ObjectReplacedError
from litelambda_serving.s3_store import load_native
from litelambda_serving.store import split_store_url
from litelambda_serving.store.cloud_failures import translate
from litelambda_serving.store.clouds import endpoint_of, open_client

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import NoReturn

    from litelambda_serving.objects.base import UploadState

__all__ = ["CloudObjects"]

_ATTEMPTS = 5
_PAUSE_S = 0.1  # before the second try of a write, twice that before the third, …
_CLIENT_OPTIONS = {"connect_timeout": "5s", "timeout": "300s"}


class CloudObjects:
    """See `base.Objects`."""

    def __init__(self) -> None:
        self._native = load_native()
        self._clients: dict[tuple[str, bool], Any] = {}
        exceptions = self._native.exceptions
        self._errors = (exceptions.BaseError, OSError)
        self._lost = (exceptions.AlreadyExistsError, exceptions.PreconditionError)

    def head(self, url: str, version_id: str = "") -> ObjectInfo | None:  # noqa: ARG002 - none are asked for
        """See `Objects.head`."""
        client, key = self._at(url)
        try:
            return self._info(url, self._native.head(client, key))
        except self._errors as error:
            reason = self._translated(error, url)
            if isinstance(reason, ObjectNotFoundError):
                return None
            raise reason from error

    def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """See `Objects.read`."""
        if stop <= start:
            return b""
        client, key = self._at(info.url)
        options = {"range": (start, stop), "if_match": f'"{info.tag}"'}
        try:
            return bytes(self._native.get(client, key, options=options).bytes())
        except self._lost as error:
            raise ObjectReplacedError(f"{info.url} was replaced while it was read") from error
        except self._errors as error:
            raise self._translated(error, info.url) from error

    def list(self, url: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """See `Objects.list`."""
        root, prefix = _split(url)
        client = self._client(root)
        try:
            pages = self._native.list(client, prefix=prefix.rpartition("/")[0] or None)
            found = [self._info(f"{root}/{meta['path']}", meta) for page in pages for meta in page]
        except self._errors as error:
            raise self._translated(error, url) from error
        yield from sorted(
            (info for info in found if info.url.startswith(url) and info.url > start_after), key=lambda info: info.url
        )

    def folders(self, url: str) -> Sequence[str]:
        """See `Objects.folders`."""
        root, prefix = _split(url)
        try:
            found = self._native.list_with_delimiter(self._client(root), prefix.rstrip("/") or None)
        except self._errors as error:
            raise self._translated(error, url) from error
        return sorted(path.rstrip("/").rpartition("/")[2] for path in found["common_prefixes"])

    def get(self, url: str) -> tuple[bytes, str] | None:
        """See `Objects.get`."""
        client, key = self._at(url)
        try:
            answer = self._native.get(client, key)
            return bytes(answer.bytes()), answer.meta["version" if url.startswith("gs://") else "e_tag"] or ""
        except self._errors as error:
            reason = self._translated(error, url)
            if isinstance(reason, ObjectNotFoundError):
                return None
            raise reason from error

    def put(self, url: str, data: bytes | Path, *, tag: str | None = None, owner: str = "") -> bool:  # noqa: ARG002 - of jobs alone
        """See `Objects.put`."""
        root, key = _split(url)
        client = self._client(root, once=tag is not None)
        mode: Any = "overwrite" if tag is None else _version(url, tag) if tag else "create"
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                self._native.put(client, key, data, mode=mode, use_multipart=None if tag is None else False)
            except self._lost:
                # An earlier try of this very write may have stored the object, and its answer been lost.
                return attempt > 1 and self._is_there(url, data)
            except self._errors as error:
                if tag and isinstance(error, FileNotFoundError):
                    return False
                reason = self._translated(error, url, writing=True)
                if attempt == _ATTEMPTS or not isinstance(reason, StoreUnavailableError):
                    raise reason from error
                time.sleep(_PAUSE_S * 2 ** (attempt - 1))
            else:
                break
        return True

    def delete(self, url: str) -> None:
        """See `Objects.delete`."""
        client, key = self._at(url)
        try:
            self._native.delete(client, key)
        except self._errors as error:
            reason = self._translated(error, url)
            if not isinstance(reason, ObjectNotFoundError):
                raise reason from error

    def upload(
        self,
        url: str,
        part_bytes: int,  # noqa: ARG002 - it is refused
        state: UploadState | None = None,  # noqa: ARG002 - as above
        *,
        hold_head: bool = False,  # noqa: ARG002 - as above
        replace: bool = False,  # noqa: ARG002 - as above
        owner: str = "",  # noqa: ARG002 - as above
    ) -> NoReturn:
        """Refuse: batch scoring writes to folders and S3."""
        raise SettingsError(f"{url}: batch scoring writes to file:///path or s3://bucket/prefix")

    def _client(self, root: str, *, once: bool = False) -> Any:
        """The client of a bucket; `once` for one that sends a request no second time."""
        if (root, once) not in self._clients:
            scheme, bucket, _ = split_store_url(root)
            options = {**_CLIENT_OPTIONS, "allow_http": endpoint_of(scheme).startswith("http://")}
            retries = {"retry_config": {"max_retries": 0}} if once else {}
            client = open_client(self._native, scheme, bucket, client_options=options, **retries)
            self._clients[root, once] = client
        return self._clients[root, once]

    def _at(self, url: str) -> tuple[Any, str]:
        root, key = _split(url)
        return self._client(root), key

    def _info(self, url: str, meta: Any) -> ObjectInfo:
        return ObjectInfo(url, meta["size"], (meta["e_tag"] or "").strip('"'))

    def _is_there(self, url: str, data: bytes | Path) -> bool:
        found = self.get(url)
        return found is not None and found[0] == (data if isinstance(data, bytes) else data.read_bytes())

    def _translated(self, error: Exception, url: str, *, writing: bool = False) -> StoreError:
        return translate(error, self._native.exceptions, url, url[:2], writing=writing)


def _split(url: str) -> tuple[str, str]:
    """A bucket's URL, and the key in it."""
    scheme, _, rest = url.partition("://")
    bucket, _, key = rest.partition("/")
    return f"{scheme}://{bucket}", key


def _version(url: str, tag: str) -> dict[str, str]:
    """The object that a write replaces, as obstore names it."""
    return {"e_tag": tag, "version": tag} if url.startswith("gs://") else {"e_tag": tag}
