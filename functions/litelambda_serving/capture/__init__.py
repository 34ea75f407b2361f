"""A sample of the requests and their answers, kept in a store as SageMaker's data capture would.

Loaded where CAPTURE_STORE is set. A request pays for a random number and a place in a list; what is kept is written
together, after an answer has been sent (see `after_response` in `predict`). An execution environment that ends takes
with it what was not written yet: at most CAPTURE_SECONDS of requests, or a megabyte.

A record is whole or absent: what is too large, or cannot be redacted, is not kept (`litelambda_serving.capture.records`
makes the lines).
"""

from __future__ import annotations

import os
import time

from litelambda_serving.errors import ServingError, SettingsError, StoreAccessError
from litelambda_serving.store import split_store_url

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Protocol

    from litelambda_serving.http import Request, Response
    from litelambda_serving.manifest import Manifest

    Kept = tuple[Request, Response, str, float]

    class Writer(Protocol):
        """Where captures go."""

        def write(self, key: str, data: bytes) -> None:
            """Write one object whole."""


__all__ = ["Capture", "CaptureSettings"]

_JSON_LINES = "application/x-ndjson"  # no form of SageMaker's data capture, nor are answers that leave in parts
_ROUTES = frozenset({"predict", "classify", "regress", "infer"})
_FULL_BYTES = 1024 * 1024  # of records that wait: they are written without waiting for more
_MOST_BYTES = 8 * 1024 * 1024  # of records that wait: while they cannot be written, no more are kept
_MOST_KB = 6 * 1024


class CaptureSettings:
    """What is captured, and where to.

    Attributes:
        url: the store's, s3://bucket/prefix or file:///path.
        percent: share of the predictions that is kept.
        redacted: names of fields and tensors whose values are left out.
        max_bytes: of a request, and of an answer: what is larger is not kept.
        seconds: age from which on records are written; 0 writes after every answer.
    """

    __slots__ = ("max_bytes", "percent", "redacted", "seconds", "url")

    def __init__(self, environment: Mapping[str, str]) -> None:
        """Read the function's environment.

        Raises:
            SettingsError: a value is impossible; the message says what it may be.

        >>> CaptureSettings({"CAPTURE_STORE": "s3://bucket/captured", "CAPTURE_PERCENT": "5"}).percent
        5.0
        """
        self.url = environment["CAPTURE_STORE"]
        split_store_url(self.url)
        self.percent = _number(environment, "CAPTURE_PERCENT", 100, 100)
        self.redacted = frozenset(
            name for each in (environment.get("CAPTURE_REDACT") or "").split(",") if (name := each.strip())
        )
        self.max_bytes = int(_number(environment, "CAPTURE_MAX_KB", 256, _MOST_KB) * 1024)
        self.seconds = _number(environment, "CAPTURE_SECONDS", 60, 86400)


class Capture:
    """Keeps a sample of the predictions until they are written."""

    def __init__(
        self,
        settings: CaptureSettings,
        find_manifest: Callable[[str, int], Manifest | None],
        warn: Callable[[str], None],
        *,
        has_custom_code: bool = False,
    ) -> None:
        """Keep nothing yet; the store is opened by the first write.

        Args:
            settings: what is captured.
            find_manifest: the manifest of a version that is loaded.
            warn: called with what went wrong: a capture never fails a request.
            has_custom_code: whether requests have the fields of the function's own code.
        """
        self._settings = settings
        self._find_manifest = find_manifest
        self._warn = warn
        self._has_custom_code = has_custom_code
        self._writer: Writer | None = None
        self._kept: list[Kept] = []
        self._bytes = self._dropped = 0
        self._oldest = 0.0

    def add(self, request: Request, response: Response, event_id: str) -> None:
        """Keep a request and its answer, if it is a prediction, chance wants it, and it is not too large.

        Args:
            request: which was answered.
            response: as it goes out.
            event_id: Lambda's id of the request.
        """
        if response.route not in _ROUTES or response.status != 200 or response.content_type == _JSON_LINES:
            return
        settings = self._settings
        if settings.percent < 100 and int.from_bytes(os.urandom(4), "big") * 100 >= settings.percent * 2**32:
            return
        request_bytes, response_bytes = len(memoryview(request.body)), len(response.body)
        if max(request_bytes, response_bytes) > settings.max_bytes or self._bytes > _MOST_BYTES:
            self._dropped += 1
            return
        if not self._kept:
            self._oldest = time.time()
        self._kept.append((request, response, event_id, time.time()))
        self._bytes += request_bytes + response_bytes

    @property
    def is_due(self) -> bool:
        """Whether what is kept should be written now."""
        return bool(self._kept) and (self._bytes >= _FULL_BYTES or time.time() - self._oldest >= self._settings.seconds)

    def take(self) -> list[Kept]:
        """What is kept, to be written; from here on other requests are kept."""
        if self._dropped:
            self._warn(f"requests not captured: {self._dropped}, larger than CAPTURE_MAX_KB, or too many at once")
        kept, self._kept = self._kept, []
        self._dropped = self._bytes = 0
        return kept

    def write(self, kept: list[Kept]) -> None:
        """Write what was taken; what cannot be written is lost, with a warning."""
        try:
            from litelambda_serving.capture.records import objects_of

            objects, refused = objects_of(kept, self._settings.redacted, self._find_manifest, self._has_custom_code)
            if self._writer is None:
                self._writer = _open_writer(self._settings.url)
            for key, data in objects:
                self._writer.write(key, data)
        except ServingError as error:
            self._warn(f"captured requests lost: {len(kept)}; {error}")
        except Exception as error:  # noqa: BLE001 - it must fail neither a request nor the thread that it may run in
            self._warn(f"captured requests lost: {len(kept)}; {type(error).__name__}: {error}")
        else:
            if refused:
                self._warn(f"requests not captured: {refused}, which may have fields of CAPTURE_REDACT without names")


def _number(environment: Mapping[str, str], name: str, default: float, most: float) -> float:
    text = environment.get(name) or f"{default}"
    digits = text.replace(".", "", 1)
    if not digits.isdecimal() or not 0 <= float(text) <= most:
        raise SettingsError(f"{name} is {text!r}, expected a number from 0 to {most}")
    return float(text)


def _open_writer(url: str) -> Writer:
    scheme, bucket, path = split_store_url(url)
    if scheme == "file":
        return _Folder(path)
    if scheme == "s3":
        from litelambda_serving.s3_store import S3Store

        return S3Store(url, bucket, path)
    from litelambda_serving.store.clouds import CloudStore

    return CloudStore(url, scheme, bucket, path)


class _Folder:
    """A local folder, for `litelambda serve` and tests."""

    def __init__(self, path: str) -> None:
        from urllib.parse import unquote

        self._path = unquote(path)

    def write(self, key: str, data: bytes) -> None:
        path = os.path.join(self._path, key)
        try:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            with open(path, "wb") as file:
                file.write(data)
        except OSError as error:
            raise StoreAccessError(f"cannot write {path}: {error}") from error
