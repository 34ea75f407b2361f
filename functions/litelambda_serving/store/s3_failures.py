"""Why reading S3 failed, as one of our errors: loaded with the first failure, never in a healthy INIT.

S3 says in an error document what it refused and why. obstore keeps that document in the text of its exception, which
can also name hosts and headers: only the code and the region are taken from it, the rest stays in the chained cause.

`s3_answers` says what a code means; this module says what to do about it.
"""

from __future__ import annotations

import os
import re

from litelambda_serving.errors import (
    ObjectNotFoundError,
    StoreAccessError,
    StoreError,
    StoreLocationError,
    StoreUnavailableError,
)
from litelambda_serving.store.s3_answers import Meaning, meaning_of_code

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["translate"]

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,32})</Region>")
_BARE_REDIRECT = "Received redirect without LOCATION"  # a 301 of S3: its document names a host, its header the region
_OTHER_REGION = (
    "AuthorizationHeaderMalformed",
    "PermanentRedirect",
    "TemporaryRedirect",
    "IllegalLocationConstraintException",
)
_REFUSALS = {
    "ExpiredToken": "the credentials have expired: renew them",
    "InvalidToken": "the session token is not valid: renew the credentials",
    "InvalidAccessKeyId": "the access key is unknown: set credentials of this account and partition",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: set both again",
    "RequestTimeTooSkewed": "this machine's clock is wrong: set it",
    "InvalidObjectState": "it is archived: restore it to a storage class that can be read at once",
}
"""By code, what is wrong and what to do, where that is not the right to read."""

_REGION_TIMEOUT_S = 2.0


def translate(error: Exception, exceptions: Any, name: str, bucket: str) -> StoreError:
    """Turn obstore's error into one of ours.

    Args:
        error: what obstore raised.
        exceptions: obstore's own classes.
        name: URL of what was read.
        bucket: the store's bucket.
    """
    text = str(error)
    found = _CODE.search(text)
    code = found[1] if found else ""
    meaning = meaning_of_code(code)
    if meaning is Meaning.NO_BUCKET or code in _OTHER_REGION or _BARE_REDIRECT in text:
        return _misplaced(meaning, text, bucket)
    if isinstance(error, (exceptions.NotFoundError, FileNotFoundError)):
        return ObjectNotFoundError(f"no object {name}")
    remedy = _REFUSALS.get(code)
    if code.startswith("KMS.") and meaning is Meaning.REFUSED:
        remedy = "it could not be decrypted: enable the key, and grant the role kms:Decrypt"
    elif isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        remedy = remedy or (
            "the function's role needs s3:GetObject on it (and s3:ListBucket to tell a missing object from a "
            "forbidden one)"
        )
    if remedy:
        return StoreAccessError(f"S3 refused to read {name}{f' ({code})' if code else ''}: {remedy}")
    if meaning is Meaning.REFUSED:
        return StoreError(f"S3 refused to read {name} ({code})")
    return StoreUnavailableError(f"S3 could not deliver {name} ({code or type(error).__name__}), retries included")


def _misplaced(meaning: Meaning, text: str, bucket: str) -> StoreLocationError:
    if meaning is Meaning.NO_BUCKET:
        return StoreLocationError(f"the bucket {bucket!r} does not exist: correct the store URL (MODEL_STORE)")
    found = _REGION.search(text)
    region = found[1] if found else _region_of(bucket)
    here = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"
    return StoreLocationError(
        f"the bucket {bucket!r} is in {f'the region {region}' if region else 'another region'}, and was asked for in "
        f"{here}: deploy the function where its store is, or publish to a bucket in {here}"
    )


def _region_of(bucket: str) -> str:
    """The region that S3 itself names in its answer to an unsigned HEAD; "" where it cannot be asked."""
    from http.client import HTTPConnection, HTTPException, HTTPSConnection
    from urllib.parse import urlsplit

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    url = urlsplit(endpoint or "https://s3.amazonaws.com")
    connect = HTTPConnection if url.scheme == "http" else HTTPSConnection
    connection = connect(url.netloc, timeout=_REGION_TIMEOUT_S)
    try:
        connection.request("HEAD", f"/{bucket}")
        region = connection.getresponse().getheader("x-amz-bucket-region") or ""
    except (OSError, HTTPException):
        return ""
    finally:
        connection.close()
    return region if re.fullmatch(r"[a-z0-9-]{1,32}", region) else ""
