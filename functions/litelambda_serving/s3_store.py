"""A store in S3, read through obstore's native module; `store.clouds` has the same for other clouds.

Three choices here save INIT time. The extension is loaded alone: the Python package around it takes 12 ms to import,
and reading does not need it. The client trusts Amazon's five root certificates: parsing all 140 of a
system takes 20 ms. And a large object comes in parallel ranges, hashed while it arrives.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec

from litelambda_serving.background import Background
from litelambda_serving.digest import hexdigest, new_hasher
from litelambda_serving.errors import RuntimeLibraryError, StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from typing_extensions import Buffer

    from litelambda_serving.trust import Trust

    Sink = Callable[[Buffer], None]

__all__ = ["S3Store", "load_native"]

# INIT has 10 s in all: this is how much of them a failing S3 may take before the function reports it.
_RETRIES = 3
_CONNECT_TIMEOUT = "1s"
_READ_TIMEOUT = "8s"
_RETRY_S = 6  # from the first request on: a store that does not answer at all is not asked twice

_PART_BYTES = 8 * 1024 * 1024
"""One range. An object no larger comes in one round trip; S3 gives a stream about 80 MB/s, and has many streams."""

_STREAMS = 8
_CHUNK_BYTES = 1024 * 1024
_SINK_BYTES = 128 * 1024  # for a sink that works on the bytes: it is done with a chunk before the next one arrives

_TRUST = os.path.join(os.path.dirname(os.path.abspath(__file__)), "amazon_trust.pem")


class S3Store:
    """A prefix in an S3 bucket.

    Endpoint, region and credentials come from AWS's own environment variables, as everywhere.
    """

    trust: Trust | None = None

    def __init__(self, url: str, bucket: str, prefix: str) -> None:
        self.url = url
        self._bucket = bucket
        self._prefix = prefix
        self._native = load_native()
        self.reopen()

    def reopen(self) -> None:
        """Forget connections and credentials; see `Store.reopen`."""
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
        provider = None
        if "AWS_CONTAINER_CREDENTIALS_FULL_URI" in os.environ:
            from litelambda_serving.store import container_credentials

            provider = container_credentials.credentials if container_credentials.available() else None
        with _Trust(endpoint):
            self._client = self._native._store.S3Store(
                self._bucket, credential_provider=provider, **self._options(endpoint)
            )

    def _options(self, endpoint: str) -> dict[str, Any]:
        """What a client for reading is made with."""
        from datetime import timedelta  # obstore has loaded it for itself

        return {
            "prefix": self._prefix or None,
            "client_options": {
                "allow_http": endpoint.startswith("http://"),
                "connect_timeout": _CONNECT_TIMEOUT,
                "timeout": _READ_TIMEOUT,
            },
            "retry_config": {"max_retries": _RETRIES, "retry_timeout": timedelta(seconds=_RETRY_S)},
        }

    def fetch(self, key: str, max_bytes: int) -> Buffer:
        """GET one object; see `Store.fetch`."""
        try:
            answer = self._native.get(self._client, key)
            self._check_size(key, answer.meta["size"], max_bytes)
            data: Buffer = answer.bytes()
        except (self._native.exceptions.BaseError, OSError) as error:
            raise self._translated(error, key) from error
        return data

    def fetch_digested(self, key: str, max_bytes: int, sink: Sink | None = None) -> tuple[Buffer, str]:
        """GET one object and hash it on its way; see `Store.fetch_digested`.

        The first range tells the size: most objects are whole with it, the others' ranges come side by side.
        """
        try:
            answer = self._native.get(self._client, key, options={"range": (0, _PART_BYTES)})
            size = answer.meta["size"]
            self._check_size(key, size, max_bytes)
            if size > _PART_BYTES:
                return self._fetch_ranges(key, answer, sink)
            if sink is not None:
                return _fetch_stream(answer, sink)
            data: Buffer = answer.bytes()
        except (self._native.exceptions.BaseError, OSError) as error:
            raise self._translated(error, key) from error
        return data, hexdigest(data)

    def fetch_typed(self, key: str, check: Callable[[int], None]) -> tuple[Buffer, str]:
        """GET one object in ranges, as `fetch_digested` does, and its content type.

        Args:
            key: of the object.
            check: called with its size before its rest is fetched; raises if that is too much.
        """
        try:
            answer = self._native.get(self._client, key, options={"range": (0, _PART_BYTES)})
            size, content_type = answer.meta["size"], str(answer.attributes.get("Content-Type", ""))
            check(size)
            if size > _PART_BYTES:
                return self._fetch_ranges(key, answer, None)[0], content_type
            data: Buffer = answer.bytes()
        except (self._native.exceptions.BaseError, OSError) as error:
            raise self._translated(error, key) from error
        return data, content_type

    def fetch_changed(self, key: str, max_bytes: int, tag: str) -> tuple[Buffer, str] | None:
        """GET one object, on condition of its ETag when one is known; see `Store.fetch_changed`."""
        exceptions = self._native.exceptions
        try:
            answer = self._native.get(self._client, key, options={"if_none_match": tag} if tag else None)
            self._check_size(key, answer.meta["size"], max_bytes)
            return answer.bytes(), answer.meta["e_tag"] or ""
        except exceptions.NotModifiedError:
            return None
        except (exceptions.BaseError, OSError) as error:
            raise self._translated(error, key) from error

    def write(self, key: str, data: bytes) -> None:
        """PUT one object whole: captures, of what is deployed, go to a store of their own.

        Raises:
            StoreError: S3 refused, or could not be reached.
        """
        try:
            self._native.put(self._client, key, data, use_multipart=False)
        except (self._native.exceptions.BaseError, OSError) as error:
            raise self._translated(error, key) from error

    def list_folders(self) -> list[str]:
        """LIST the prefixes below this store's; see `Store.list_folders`."""
        try:
            prefixes = self._native.list_with_delimiter(self._client)["common_prefixes"]
        except (self._native.exceptions.BaseError, OSError) as error:
            raise self._translated(error, "") from error
        return sorted(prefix.rstrip("/").rpartition("/")[2] for prefix in prefixes)

    def _check_size(self, key: str, size: int, max_bytes: int) -> None:
        if size > max_bytes:
            raise StoreError(f"{self.url}/{key} has {size} bytes, at most {max_bytes} were expected")

    def _fetch_ranges(self, key: str, first: Any, sink: Sink | None) -> tuple[Buffer, str]:
        """Fill one buffer from parallel streams; hash each range when it and all before it are there."""
        from litelambda_serving.store.memory import allocate

        size = first.meta["size"]
        hasher = new_hasher(size)
        buffer = allocate(f"{self.url}/{key}", size)
        view = memoryview(buffer)
        starts = range(0, size, _PART_BYTES)
        parts: list[Background] = [Background(_drain, first, view[:_PART_BYTES])]
        for index, start in enumerate(starts):
            # One new stream for each that ended: memory beyond the buffer is a chunk a stream.
            while len(parts) < min(index + _STREAMS, len(starts)):
                parts.append(self._start_part(key, first.meta["e_tag"], view, starts[len(parts)]))
            parts[index].result()
            hasher.update(view[start : start + _PART_BYTES])
            if sink is not None:
                sink(view[start : start + _PART_BYTES])
        return buffer, hasher.hexdigest()

    def _start_part(self, key: str, tag: str, view: memoryview, start: int) -> Background:
        end = min(start + _PART_BYTES, len(view))

        def fetch() -> None:
            options = {"range": (start, end), "if_match": tag}
            _drain(self._native.get(self._client, key, options=options), view[start:end])

        return Background(fetch)

    def _translated(self, error: Exception, key: str) -> StoreError:
        """Turn obstore's error into one of ours; what reads it is loaded with the first failure."""
        from litelambda_serving.store.s3_failures import translate

        return translate(error, self._native.exceptions, f"{self.url}/{key}", self._bucket)


def _fetch_stream(answer: Any, sink: Sink) -> tuple[Buffer, str]:
    """The body of one response and its digest, passed to the sink chunk by chunk while the rest arrives."""
    size = answer.meta["size"]
    hasher = new_hasher(size)
    chunks = []
    for chunk in answer.stream(min_chunk_size=_SINK_BYTES):
        hasher.update(chunk)
        sink(chunk)
        chunks.append(chunk)
    data = b"".join(chunks)
    if len(data) != size:
        raise ConnectionError(f"the body ended after {len(data)} of {size} bytes")
    return data, hasher.hexdigest()


def _drain(answer: Any, target: memoryview) -> None:
    """Copy a response's body into `target` as it arrives."""
    position = 0
    for chunk in answer.stream(min_chunk_size=_CHUNK_BYTES):
        piece = memoryview(chunk)
        target[position : position + len(piece)] = piece
        position += len(piece)
    if position != len(target):
        raise ConnectionError(f"the body ended after {position} of {len(target)} bytes")


def load_native() -> Any:
    """Obstore's extension module, without the package around it.

    It is loaded under its own name, so that `import obstore` elsewhere in the process still works.
    """
    name = "_obstore"
    if name in sys.modules:
        return sys.modules[name]
    for entry in sys.path:
        path = os.path.join(entry or ".", "obstore", "_obstore.abi3.so")
        if os.path.exists(path):
            loader = ExtensionFileLoader(name, path)
            try:
                module = loader.create_module(ModuleSpec(name, loader, origin=path))
                loader.exec_module(module)
            except ImportError as error:
                raise RuntimeLibraryError(
                    f"{path} is not obstore for this machine ({os.uname().machine}): {error}. "
                    "Package for the function's architecture, or install obstore for this one."
                ) from error
            sys.modules[name] = module
            return module
    raise RuntimeLibraryError(
        "obstore's native module is not on sys.path: run `litelambda package`, or install obstore"
    )


class _Trust:
    """Narrow the roots that the client about to be made trusts to Amazon's own, unless someone chose others.

    S3's own endpoints have certificates of Amazon Trust Services. A private endpoint may have any authority's, and so
    may the partition in China: there the system's roots stay. The client reads the variables when it is made.
    """

    def __init__(self, endpoint: str) -> None:
        chosen = "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ
        elsewhere = endpoint.startswith("https://") or os.environ.get("AWS_REGION", "").startswith("cn-")
        self._narrow = not chosen and not elsewhere

    def __enter__(self) -> None:
        if self._narrow:
            os.environ["SSL_CERT_FILE"] = _TRUST

    def __exit__(self, *_: object) -> None:
        if self._narrow:
            del os.environ["SSL_CERT_FILE"]
