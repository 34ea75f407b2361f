"""Credentials from the container endpoint: what a function under SnapStart gets in place of access keys.

A snapshot outlives any key that was in its environment, so Lambda gives the address of an endpoint and a token for it.
The S3 client does not read this form of the token from a variable: it asks here instead, and again when it expires.

Source: docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html
"""

from __future__ import annotations

import os

from litelambda_serving.errors import StoreAccessError
from litelambda_serving.json_codec import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["available", "credentials"]

_URI = "AWS_CONTAINER_CREDENTIALS_FULL_URI"
_TOKEN = "AWS_CONTAINER_AUTHORIZATION_TOKEN"  # noqa: S105 - the name of a variable
_TIMEOUT_SECONDS = 2


def available() -> bool:
    """Whether this environment has the endpoint, and no access keys."""
    return _URI in os.environ and _TOKEN in os.environ and "AWS_ACCESS_KEY_ID" not in os.environ


def credentials() -> dict[str, Any]:
    """Ask for credentials, in the form that the S3 client expects of a provider.

    Raises:
        StoreAccessError: the endpoint refuses, or answers with something else.
    """
    from datetime import datetime
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    request = Request(os.environ[_URI], headers={"Authorization": os.environ[_TOKEN]})  # noqa: S310 - Lambda's own URL
    try:
        with urlopen(request, timeout=_TIMEOUT_SECONDS) as response:  # noqa: S310 - as above
            fields = loads(response.read())
        return {
            "access_key_id": fields["AccessKeyId"],
            "secret_access_key": fields["SecretAccessKey"],
            "token": fields["Token"],
            "expires_at": datetime.fromisoformat(fields["Expiration"].replace("Z", "+00:00")),
        }
    except (URLError, OSError, ValueError, KeyError, TypeError) as error:
        raise StoreAccessError(f"the container credentials endpoint gave no credentials: {error}") from error
