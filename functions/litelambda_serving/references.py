"""Requests that name an object in S3 which has their body: `{"s3": "s3://bucket/prefix/key"}`.

Loaded with the first of them where REQUEST_STORE says that there may be some. The function's role reads the object, so
that its limits, and not those of an invocation, are the request's.
"""

from __future__ import annotations

import os

from litelambda_serving.errors import ObjectNotFoundError, PayloadTooLargeError, RequestError, StoreAccessError
from litelambda_serving.http import RAW_TYPES, decompressed
from litelambda_serving.json_codec import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from litelambda_serving.http import Request
    from litelambda_serving.s3_store import S3Store

__all__ = ["resolve"]

_DEFAULT_MEMORY_MB = 1769  # of what is not a function: as `litelambda_serving.settings` has it
_SHARE = 8  # of the function's memory: numbers take several times their text's size while they are read
_stores: dict[str, S3Store] = {}


def resolve(request: Request) -> None:
    """Put the object's bytes and content type into a request that names one; leave any other as it is.

    An object without a content type of its own has the request's.

    Raises:
        RequestError: the name is not one that callers may give, or the object cannot be read.
        PayloadTooLargeError: the object is too large.
        StoreUnavailableError: S3 did not answer.
    """
    url = _named(request.body)
    if url is None:
        return
    key = _key_below(url, request.request_store)
    prefix = url[: -len(key) - 1]
    if prefix not in _stores:
        from litelambda_serving.s3_store import S3Store
        from litelambda_serving.store import split_store_url

        _, bucket, path = split_store_url(prefix)
        _stores[prefix] = S3Store(prefix, bucket, path)
    data, content_type = _fetch(_stores[prefix], url, key)
    headers = dict(request.headers)
    if content_type.startswith((*RAW_TYPES, "application/json")) and content_type != "application/octet-stream":
        headers["content-type"] = content_type
    request.headers = headers
    request.body = decompressed(data, headers, _most_bytes())


def _named(body: Buffer) -> str | None:
    """What a body names; None where it does not name anything."""
    if bytes(memoryview(body)[:1]) != b"{":
        return None
    try:
        fields = loads(bytes(body))
    except (ValueError, RecursionError):
        return None
    if type(fields) is not dict or fields.keys() != {"s3"}:
        return None
    if type(fields["s3"]) is not str:
        raise RequestError("'s3' must be a string, s3://bucket/prefix/key")
    return fields["s3"]


def _key_below(url: str, prefixes: str) -> str:
    """The object's key below the prefix that allows it."""
    for prefix in prefixes.split(","):
        key = url[len(prefix) + 1 :]
        parts = key.split("/")
        # Clients understand such segments in different ways: what is allowed must be what is read.
        if url.startswith(prefix + "/") and not {"", ".", ".."}.intersection(parts) and key.isprintable():
            return key
    allowed = ", ".join(f"{prefix}/…" for prefix in prefixes.split(","))
    raise RequestError(f"'s3' is {url[:200]!r}: expected an object of {allowed}")


def _fetch(store: S3Store, url: str, key: str) -> tuple[Buffer, str]:
    most = _most_bytes()

    def check(size: int) -> None:
        if size > most:
            raise PayloadTooLargeError(
                f"{url} has {size} bytes, over the {most} that a function of this memory takes: send fewer rows at a "
                "time, score the file in batch, or deploy with a larger MemorySize"
            )

    try:
        return store.fetch_typed(key, check)
    except ObjectNotFoundError as error:
        raise RequestError(f"{url} does not exist") from error
    except StoreAccessError as error:
        raise RequestError(f"{url} does not exist, or the function's role may not read it") from error


def _most_bytes() -> int:
    memory_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    return (int(memory_mb) if memory_mb.isdecimal() else _DEFAULT_MEMORY_MB) * 1024 * 1024 // _SHARE
