"""The S3 client's errors in our own terms."""

from __future__ import annotations

from serving.errors import StoreAccessError, StoreUnavailableError
from serving.scoring.errors import InputNotFoundError, InputReplacedError

__all__ = ["CONFLICTS", "GONE", "MISSING", "error_code", "is_cut", "translated"]

MISSING = {"404", "NoSuchKey", "NoSuchVersion", "NoSuchBucket", "NotFound"}
CONFLICTS = {"412", "PreconditionFailed", "409", "ConditionalRequestConflict"}
GONE = {"NoSuchUpload", "InvalidPart"}
_FORBIDDEN = {"403", "401", "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken"}
_CHANGED = {"412", "PreconditionFailed", "416", "InvalidRange"}


def error_code(error: Exception) -> str:
    """S3's own word for an error, "" for those of the connection."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def is_cut(error: Exception) -> bool:
    """Whether a body stopped early: the request succeeded, so the client does not try again by itself."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    return isinstance(error, (IncompleteReadError, HTTPClientError, OSError))


def translated(error: Exception, url: str) -> Exception:
    """The client's error in our own terms."""
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        return _translated_code(error_code(error), url)
    if isinstance(error, NoCredentialsError):
        return StoreAccessError(f"no credentials for {url}")
    if isinstance(error, (BotoCoreError, OSError)):
        return StoreUnavailableError(f"S3 could not serve {url} ({type(error).__name__})")
    return error


def _translated_code(code: str, url: str) -> Exception:
    if code in MISSING:
        return InputNotFoundError(f"there is no {url}")
    if code in _CHANGED:
        return InputReplacedError(f"{url} was replaced: it is no longer the version that was asked for")
    if code in _FORBIDDEN:
        return StoreAccessError(f"S3 refused {url} ({code}): the role needs the right to read or write it")
    return StoreUnavailableError(f"S3 could not serve {url} ({code})")
