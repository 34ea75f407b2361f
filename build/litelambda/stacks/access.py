"""Where a stack's API answers, and what it wants of those who call it."""

from __future__ import annotations

import shlex
from typing import Any

from litelambda.common.aws import aws_client, aws_session, refusals_explained
from litelambda.stacks.stack import Stack, read_stack

__all__ = ["address_of", "curl"]


def address_of(name: str) -> tuple[str, str, dict[str, str]]:
    """The URL of a stack's API, the model that it loads first, and the headers that carry its key, if it has one.

    Raises:
        UsageError: the stack does not exist, or it has no API.
        AwsError: AWS refused.
    """
    stack = read_stack(name)
    headers = {}
    if key_id := stack.outputs.get("ApiKeyId"):
        with refusals_explained(f"the API key of the stack {name} cannot be read"):
            key = aws_client("apigateway").get_api_key(apiKey=key_id, includeValue=True)["value"]
        headers["x-api-key"] = key
    return stack.api_url, stack.parameters.get("ModelName", ""), headers


def curl(stack: Stack, path: str, body: str = "") -> str:
    """A curl command that asks a stack's API as its `Authorization` wants; secrets stay in variables.

    Args:
        stack: whose API.
        path: below its URL.
        body: JSON to send; "" for a GET.
    """
    command = ["curl", *_credentials(stack)]
    if body:
        command += ["-H", "'Content-Type: application/json'", "-d", shlex.quote(body)]
    return " ".join([*command, shlex.quote(f"{stack.api_url}{path}")])


def _credentials(stack: Stack) -> list[str]:
    authorization = stack.parameters.get("Authorization", "AWS_IAM")
    if authorization == "JWT":
        return ["-H", '"Authorization: Bearer $TOKEN"']
    if authorization == "API_KEY":
        found = f"aws apigateway get-api-key --api-key {stack.outputs['ApiKeyId']} --include-value"
        return ["-H", f'"x-api-key: $({found} --query value --output text)"']
    if authorization == "NONE":
        return []
    signed = ["--aws-sigv4", f"aws:amz:{stack.region}:execute-api"]
    signed += ["--user", '"$AWS_ACCESS_KEY_ID:$AWS_SECRET_ACCESS_KEY"']
    return signed + (["-H", '"x-amz-security-token: $AWS_SESSION_TOKEN"'] if _has_token() else [])


def _has_token() -> bool:
    with refusals_explained("the AWS credentials cannot be read"):
        credentials: Any = aws_session().get_credentials()
        return bool(credentials and credentials.get_frozen_credentials().token)
