"""Requests to S3 through boto3: the client, its errors in our own terms, and a write that is tried until S3 decides."""

from __future__ import annotations

import base64
import hashlib
import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from litelambda_serving.errors import (
    ObjectNotFoundError,
    StoreAccessError,
    StoreLocationError,
    StoreUnavailableError,
)
from litelambda_serving.objects.base import CHUNK_BYTES, chunks_of, split_url
from litelambda_serving.objects.errors import ObjectRefusedError, ObjectReplacedError
from litelambda_serving.store.s3_answers import CONFLICT_ATTEMPTS, Meaning, error_code, meaning_of, was_sent_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    Result = TypeVar("Result")

__all__ = ["OWNER", "decided", "fetch", "make_client", "owned_by", "put", "translated"]

OWNER = "litelambda-job"  # the metadata that names the job whose output an object is

_ATTEMPTS = 5  # of one request, by the client; SlowDown and 5xx with growing, jittered pauses
_BODY_ATTEMPTS = 4  # of one range whose body is cut off
_CONNECTIONS = 16
_CONFLICT_PAUSE_S = 0.05  # before the second try of a write that met another one, twice that before the third, …


def make_client() -> Any:
    """A client with a session of its own: boto3's default one is not thread-safe.

    Raises:
        StoreAccessError: the environment names a profile that does not exist, or is wrong in another way.
    """
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError

    retries: Any = {"mode": "standard", "max_attempts": _ATTEMPTS}
    config = Config(
        retries=retries, max_pool_connections=_CONNECTIONS, connect_timeout=5, read_timeout=30, tcp_keepalive=True
    )
    try:
        return boto3.session.Session().client("s3", config=config)
    except BotoCoreError as error:
        raise StoreAccessError(f"S3 cannot be asked: {error}") from error


def owned_by(owner: str) -> dict[str, Any]:
    """The argument of a write that gives the object an owner."""
    return {"Metadata": {OWNER: owner}} if owner else {}


def fetch(client: Any, url: str, **arguments: Any) -> tuple[bytes, str]:
    """GET an object or a range of it, and its tag; a body that stops early is asked for again."""
    bucket, key = split_url(url)
    for is_last in (*[False] * (_BODY_ATTEMPTS - 1), True):
        try:
            answer = client.get_object(Bucket=bucket, Key=key, **arguments)
            return answer["Body"].read(), answer["ETag"].strip('"')
        except Exception as error:
            if is_last or not _is_cut(error):
                raise translated(error, url) from error
    raise AssertionError("not reached")


def put(client: Any, url: str, data: bytes | Path, *, tag: str | None, owner: str) -> bool:
    """PUT an object; see `Objects.put`."""
    bucket, key = split_url(url)
    condition = {} if tag is None else {"IfMatch": f'"{tag}"'} if tag else {"IfNoneMatch": "*"}
    checksum = _checksum(chunks_of(data))

    def send() -> None:
        with data.open("rb") if isinstance(data, Path) else nullcontext(data) as body:
            client.put_object(
                Bucket=bucket, Key=key, Body=body, ChecksumSHA256=checksum, **condition, **owned_by(owner)
            )

    try:
        decided(send)
    except Exception as error:
        meaning = meaning_of(error)
        is_lost = (tag is not None and meaning is Meaning.CHANGED) or (tag and meaning is Meaning.MISSING)
        if not is_lost:
            raise translated(error, url, writing=True) from error
        # An earlier try of this very request may have stored the object, and its answer been lost.
        return was_sent_again(error) and _is_there(client, url, checksum)
    return True


def decided(write: Callable[[], Result]) -> Result:
    """Do a conditional write; one that met another writer's, about which S3 decides nothing, is tried again."""
    for attempt in range(1, CONFLICT_ATTEMPTS):
        try:
            return write()
        except Exception as error:
            if meaning_of(error) is not Meaning.UNDECIDED:
                raise
            time.sleep(_CONFLICT_PAUSE_S * 2 ** (attempt - 1))
    return write()


def _is_there(client: Any, url: str, checksum: str) -> bool:
    bucket, key = split_url(url)
    try:
        return _checksum(client.get_object(Bucket=bucket, Key=key)["Body"].iter_chunks(CHUNK_BYTES)) == checksum
    except Exception as error:
        raise translated(error, url) from error


def _checksum(chunks: Iterable[bytes]) -> str:
    """A SHA-256 in base64, as S3 has it."""
    digest = hashlib.sha256()
    for chunk in chunks:
        digest.update(chunk)
    return base64.b64encode(digest.digest()).decode()


def _is_cut(error: Exception) -> bool:
    """Whether a body stopped early: the request succeeded, so the client does not try again by itself."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    return isinstance(error, (IncompleteReadError, HTTPClientError, OSError))


def translated(error: Exception, url: str, *, writing: bool = False) -> Exception:
    """The client's error in our own terms.

    Args:
        error: what the client raised.
        url: what was read or written.
        writing: whether it was written. There, no object but the bucket can be missing.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        return _from_answer(error, url, writing=writing)
    if isinstance(error, NoCredentialsError):
        return StoreAccessError(f"no AWS credentials were found for {url}")
    if isinstance(error, (BotoCoreError, OSError)):
        return StoreUnavailableError(f"S3 could not serve {url} ({type(error).__name__})")
    return error


def _from_answer(error: Any, url: str, *, writing: bool) -> Exception:
    code, meaning = error_code(error), meaning_of(error)
    said = error.response.get("Error", {}).get("Message")
    if writing and meaning is Meaning.MISSING:
        meaning = Meaning.NO_BUCKET
    verb = "write" if writing else "read"
    known = {
        Meaning.NO_BUCKET: StoreLocationError(
            f"the bucket of {url} does not exist{': create it, or name another' if writing else ''}"
        ),
        Meaning.MISSING: ObjectNotFoundError(f"there is no {url}"),
        Meaning.CHANGED: ObjectReplacedError(f"{url} was replaced: it is no longer the version that was asked for"),
        Meaning.REFUSED: ObjectRefusedError(f"S3 refuses to {verb} {url} ({code}{f': {said}' if said else ''})"),
        Meaning.FORBIDDEN: StoreAccessError(f"S3 refused {url} ({code}): the role needs the right to {verb} it"),
        Meaning.UNDECIDED: StoreUnavailableError(
            f"S3 could not {verb} {url} ({code}): other writes kept S3 from deciding on this one; try again"
        ),
    }
    return known.get(meaning) or StoreUnavailableError(f"S3 could not serve {url} ({code})")
