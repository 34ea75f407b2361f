"""What S3's answers mean: one table for serving, batch scoring and publishing. Loaded with the first failure.

An unknown code counts as a transient failure: another try may help. What S3 refuses for good is listed here.

Source: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

__all__ = ["CONFLICT_ATTEMPTS", "Meaning", "error_code", "meaning_of", "meaning_of_code", "was_sent_again"]

CONFLICT_ATTEMPTS = 4
"""Tries of a conditional write that S3 answers with 409, which asks for another try."""


class Meaning(Enum):
    """What an answer means, for any request."""

    MISSING = auto()
    NO_BUCKET = auto()
    NO_UPLOAD = auto()
    CHANGED = auto()
    UNDECIDED = auto()
    FORBIDDEN = auto()
    REFUSED = auto()
    UNAVAILABLE = auto()


_MEANINGS = {
    Meaning.MISSING: (
        "404",
        "NoSuchKey",
        "NoSuchVersion",
        "NotFound",
        "405",
        "MethodNotAllowed",
    ),  # 405: a delete marker
    Meaning.NO_BUCKET: ("NoSuchBucket",),
    Meaning.NO_UPLOAD: ("NoSuchUpload", "InvalidPart"),
    Meaning.CHANGED: ("412", "PreconditionFailed", "416", "InvalidRange"),
    Meaning.UNDECIDED: ("409", "ConditionalRequestConflict", "OperationAborted"),
    Meaning.FORBIDDEN: (
        *("401", "403", "AccessDenied", "AllAccessDisabled", "AccountProblem", "Forbidden"),
        *("InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"),
    ),
    Meaning.REFUSED: (
        *("InvalidObjectState", "InvalidRequest", "InvalidArgument", "InvalidURI", "InvalidBucketName"),
        *("KeyTooLongError", "KeyTooLong", "EntityTooLarge", "EntityTooSmall", "NotImplemented"),
        *("301", "PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"),
        *("InvalidEncryptionAlgorithmError", "InvalidStorageClass", "InvalidTag", "MetadataTooLarge"),
    ),
}
_MEANING_OF_CODE = {code: meaning for meaning, codes in _MEANINGS.items() for code in codes}


def error_code(error: Exception) -> str:
    """S3's own word for an error, "" for those of the connection. An answer without a body has its status instead."""
    response = getattr(error, "response", None)
    return str(response.get("Error", {}).get("Code", "")) if isinstance(response, dict) else ""


def meaning_of(error: Exception) -> Meaning:
    """What a boto3 client's error means.

    Args:
        error: botocore's ClientError; any other counts as one of the connection.
    """
    return meaning_of_code(error_code(error))


def meaning_of_code(code: str) -> Meaning:
    """What S3's own word for an error means; without one, that it did not answer.

    >>> meaning_of_code("NoSuchKey")
    <Meaning.MISSING: 1>
    """
    if code.startswith("KMS.") and "Throttl" not in code and "Internal" not in code and "Timeout" not in code:
        return Meaning.REFUSED  # the key is disabled, deleted, or not one for encryption
    return _MEANING_OF_CODE.get(code, Meaning.UNAVAILABLE)


def was_sent_again(error: Any) -> bool:
    """Whether the client had sent the request before: an earlier one may have been done, its answer lost."""
    return bool(error.response.get("ResponseMetadata", {}).get("RetryAttempts", 0))
