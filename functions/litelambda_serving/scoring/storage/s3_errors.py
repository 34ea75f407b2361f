"""The S3 client's errors in our own terms, which differ for what is read and what is written."""

from __future__ import annotations

from litelambda_serving.errors import StoreAccessError, StoreUnavailableError
from litelambda_serving.scoring.errors import (
    InputNotFoundError,
    InputRefusedError,
    InputReplacedError,
    OutputNotFoundError,
    OutputRefusedError,
)
from litelambda_serving.store.s3_answers import Meaning, error_code, meaning_of

__all__ = ["is_cut", "translated"]


def is_cut(error: Exception) -> bool:
    """Whether a body stopped early: the request succeeded, so the client does not try again by itself."""
    from botocore.exceptions import HTTPClientError, IncompleteReadError

    return isinstance(error, (IncompleteReadError, HTTPClientError, OSError))


def translated(error: Exception, url: str, *, writing: bool = False) -> Exception:
    """The client's error in our own terms.

    Args:
        error: what the client raised.
        url: what was read or written.
        writing: whether it was written. A place that cannot be written to is not the input's fault: no report of
            it could be left there, so the job must not count as done.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    if isinstance(error, ClientError):
        return _written(error, url) if writing else _read(error, url)
    if isinstance(error, NoCredentialsError):
        return StoreAccessError(f"no credentials for {url}")
    if isinstance(error, (BotoCoreError, OSError)):
        return StoreUnavailableError(f"S3 could not serve {url} ({type(error).__name__})")
    return error


def _read(error: Exception, url: str) -> Exception:
    code, meaning = error_code(error), meaning_of(error)
    if meaning is Meaning.NO_BUCKET:
        return InputNotFoundError(f"the bucket of {url} does not exist")
    if meaning is Meaning.MISSING:
        return InputNotFoundError(f"there is no {url}")
    if meaning is Meaning.CHANGED:
        return InputReplacedError(f"{url} was replaced: it is no longer the version that was asked for")
    if meaning is Meaning.REFUSED:
        return InputRefusedError(f"S3 refuses to read {url} ({code}{_said(error)})")
    return _other(code, meaning, url)


def _written(error: Exception, url: str) -> Exception:
    code, meaning = error_code(error), meaning_of(error)
    if meaning in (Meaning.NO_BUCKET, Meaning.MISSING):
        return OutputNotFoundError(f"the bucket of {url} does not exist: create it, or name another output")
    if meaning is Meaning.REFUSED:
        return OutputRefusedError(f"S3 refuses to write {url} ({code}{_said(error)})")
    return _other(code, meaning, url)


def _other(code: str, meaning: Meaning, url: str) -> Exception:
    if meaning is Meaning.FORBIDDEN:
        return StoreAccessError(f"S3 refused {url} ({code}): the role needs the right to read or write it")
    return StoreUnavailableError(f"S3 could not serve {url} ({code})")


def _said(error: Exception) -> str:
    message = str(getattr(error, "response", {}).get("Error", {}).get("Message", ""))
    return f": {message}" if message else ""
