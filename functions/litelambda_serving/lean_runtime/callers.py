"""Who invoked, where AWS's mobile SDKs or Cognito say so: the objects that a context then has.

Loaded with the first invocation that carries them. Names and shapes are the stock client's.
"""

from __future__ import annotations

from litelambda_serving.errors import LeanRuntimeError
from litelambda_serving.json_codec import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["read_client_context", "read_identity"]


class _Client:
    def __init__(self, sent: dict[str, Any]) -> None:
        self.installation_id = sent.get("installation_id")
        self.app_title = sent.get("app_title")
        self.app_version_name = sent.get("app_version_name")
        self.app_version_code = sent.get("app_version_code")
        self.app_package_name = sent.get("app_package_name")


class _ClientContext:
    def __init__(self, sent: dict[str, Any]) -> None:
        client = sent.get("client")
        self.client = None if client is None else _Client(client)
        self.custom = sent.get("custom")
        self.env = sent.get("env")


class _Identity:
    def __init__(self, sent: dict[str, Any]) -> None:
        self.cognito_identity_id = sent.get("cognitoIdentityId")
        self.cognito_identity_pool_id = sent.get("cognitoIdentityPoolId")


def read_client_context(header: str) -> _ClientContext | None:
    """What a mobile SDK sent with the invocation.

    Raises:
        LeanRuntimeError: the header is not JSON.
    """
    sent = _read(header, "Client Context")
    return None if sent is None else _ClientContext(sent)


def read_identity(header: str) -> _Identity:
    """Who Cognito says it is.

    Raises:
        LeanRuntimeError: the header is not JSON.
    """
    return _Identity(_read(header, "Cognito Identity") or {})


def _read(header: str, name: str) -> Any:
    try:
        return loads(header)
    except ValueError as error:
        raise LeanRuntimeError(
            "Runtime.LambdaContextUnmarshalError", f"Unable to parse {name} JSON: {error}"
        ) from error
