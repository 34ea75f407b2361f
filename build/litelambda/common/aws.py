"""AWS as this machine's user reaches it: the profile, the region, and one line of advice for what goes wrong there."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litelambda.common.errors import LitelambdaError, UsageError

__all__ = ["AwsError", "aws_client", "aws_session", "export_credentials", "refusals_explained"]

_NO_CREDENTIALS = "no AWS credentials found: run `aws configure`, or set AWS_PROFILE"
_CREDENTIALS = {
    "NoCredentialsError": _NO_CREDENTIALS,
    "PartialCredentialsError": "the AWS credentials are incomplete: set both keys, or run `aws configure`",
    "NoRegionError": "no AWS region found: set AWS_DEFAULT_REGION, or `region` in the profile",
    "UnauthorizedSSOTokenError": "the AWS session has ended: run `aws sso login`",
    "SSOTokenLoadError": "the AWS session has ended or was never started: run `aws sso login`",
    "TokenRetrievalError": "the AWS session has ended: run `aws sso login`",
}
"""By botocore's exception, what is wrong on this machine and what to do."""

_EXPIRED = {"ExpiredToken", "ExpiredTokenException", "RequestExpired"}
_UNKNOWN_KEYS = {
    *("InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "SignatureDoesNotMatch"),
    *("AuthFailure", "InvalidSignatureException"),
}
_FORBIDDEN = {"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "UnauthorizedException"}
_QUOTAS = {"LimitExceededException", "LimitExceeded", "ServiceQuotaExceededException", "CodeStorageExceededException"}


class AwsError(LitelambdaError):
    """AWS cannot be asked, or it refused."""


def aws_session() -> Any:
    """A session with this machine's profile.

    Raises:
        UsageError: the profile that AWS_PROFILE names does not exist, or its file cannot be read.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        return boto3.session.Session()
    except BotoCoreError as error:
        raise UsageError(_profile_advice(error)) from error


def aws_client(service: str, region: str = "") -> Any:
    """A client of one of AWS's services.

    Args:
        service: its name, as boto3 has it.
        region: where; "" for the profile's.

    Raises:
        UsageError: the profile does not exist, or no region is set.
    """
    from botocore.exceptions import BotoCoreError

    try:
        return aws_session().client(service, region_name=region or None)
    except BotoCoreError as error:
        raise UsageError(_CREDENTIALS.get(type(error).__name__) or _profile_advice(error)) from error


@contextmanager
def refusals_explained(what: str) -> Iterator[None]:
    """Turn what botocore raises into one line: what was done, what is wrong, what to do.

    Args:
        what: was asked, such as "the stack litelambda cannot be read".

    Raises:
        UsageError: this machine has no credentials, or its session has ended.
        AwsError: AWS refused, or cannot be reached.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise AwsError(f"{what}: {_advice(error)}") from error
    except BotoCoreError as error:
        if advice := _CREDENTIALS.get(type(error).__name__):
            raise UsageError(advice) from error
        raise AwsError(f"{what}: {error}") from error


def _advice(error: Any) -> str:
    found = error.response.get("Error", {})
    code, said = str(found.get("Code", "")), str(found.get("Message", "")).strip() or str(error)
    if code in _EXPIRED:
        return f"the credentials have expired: renew them ({code})"
    if code in _UNKNOWN_KEYS:
        return f"AWS does not know these credentials: set those of this account ({code})"
    if code in _FORBIDDEN:
        return f"{said} ({code}): ask for that right"
    if code in _QUOTAS:
        return f"{said} ({code}): delete what is no longer needed, or ask for a higher quota"
    return f"{said} ({code})"


def _profile_advice(error: Exception) -> str:
    profile = os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE")
    named = f"AWS_PROFILE={profile}: " if profile else ""
    return f"{named}{error}: run `aws configure list-profiles`, or unset AWS_PROFILE"


def export_credentials(store_url: str) -> None:
    """Put the profile's credentials and region where the native S3 client looks for them, if a store is in S3.

    It reads variables alone, and no file of profiles. What is in a variable already stays, as boto3 has it too.

    Raises:
        UsageError: credentials are missing, or the profile does not exist.
    """
    if not store_url.startswith("s3://"):
        return
    session = aws_session()
    values = {}
    if "AWS_ACCESS_KEY_ID" not in os.environ:
        with refusals_explained("the AWS credentials cannot be read"):
            found = session.get_credentials()
            if found is None:
                raise UsageError(_NO_CREDENTIALS)
            frozen = found.get_frozen_credentials()
        values = {
            "AWS_ACCESS_KEY_ID": frozen.access_key,
            "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
            "AWS_SESSION_TOKEN": frozen.token,
        }
    if not {"AWS_REGION", "AWS_DEFAULT_REGION"} & os.environ.keys():
        values["AWS_REGION"] = session.region_name
    os.environ.update({name: value for name, value in values.items() if value})
