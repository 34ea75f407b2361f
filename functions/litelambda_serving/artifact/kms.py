"""KMS' Decrypt over a socket of its own: boto3 takes a second to import, Python's HTTP client several times `ssl`.

One request, signed with Signature Version 4, its answer read to the end; tried again where KMS is busy or away.

Source: docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html,
docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import os
import time
from binascii import Error, a2b_base64, b2a_base64

from litelambda_serving.digest import hexdigest
from litelambda_serving.errors import StoreUnavailableError, TrustError
from litelambda_serving.json_codec import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["decrypt"]

_ATTEMPTS = 3
_PAUSE_SECONDS = 0.1
_TIMEOUT_SECONDS = 2.0
_MAX_ANSWER_BYTES = 64 * 1024
_BUSY = ("Throttling", "Internal", "Timeout", "Unavailable", "LimitExceeded")
_TRUST = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "amazon_trust.pem")


def decrypt(ciphertext: bytes, key_arn: str, context: Mapping[str, str]) -> bytes:
    """Have KMS decrypt a data key.

    Args:
        ciphertext: KMS' own form of it.
        key_arn: the key that encrypted it; no other is used.
        context: what it was bound to.

    Raises:
        TrustError: KMS refuses: another key or context, or the function's role may not use it.
        StoreUnavailableError: KMS does not answer, or is busy, retries included.
    """
    body = dumps(
        {
            "CiphertextBlob": b2a_base64(ciphertext, newline=False).decode(),
            "EncryptionContext": dict(context),
            "KeyId": key_arn,
        }
    ).encode()
    reason = ""
    for attempt in range(_ATTEMPTS):
        if attempt:
            time.sleep(_PAUSE_SECONDS * 2**attempt)
        try:
            status, answer = _post(key_arn, body)
            fields = loads(answer)
            if status == 200:
                return a2b_base64(fields["Plaintext"])
            reason = str(fields.get("__type", status)).rpartition("#")[2][:80]
        except (OSError, ValueError, KeyError, TypeError, AttributeError, Error) as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            continue
        if status < 500 and not any(word in reason for word in _BUSY):
            raise TrustError(
                f"KMS does not decrypt the data key with {key_arn} ({reason}): grant the function's role kms:Decrypt "
                "on it, enable it, and serve the version under the name and number it was encrypted for"
            )
    raise StoreUnavailableError(f"KMS does not decrypt a data key with {key_arn} ({reason}), retries included")


def _post(key_arn: str, body: bytes) -> tuple[int, bytes]:
    """Send one request on a connection of its own; its status and body."""
    import socket

    region = key_arn.split(":")[3]
    suffix = ".cn" if region.startswith("cn-") else ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_KMS") or os.environ.get("AWS_ENDPOINT_URL") or ""
    scheme, _, address = (endpoint or f"https://kms.{region}.amazonaws.com{suffix}").partition("://")
    host = address.rstrip("/")
    name, _, port = host.partition(":")
    head = "".join(f"{key}: {value}\r\n" for key, value in _headers(host, region, body).items())
    connection: Any = socket.create_connection((name, int(port or (80 if scheme == "http" else 443))), _TIMEOUT_SECONDS)
    with connection:
        if scheme != "http":
            connection = _tls(connection, name, own=not endpoint and not suffix)
        connection.sendall(f"POST / HTTP/1.1\r\n{head}\r\n".encode() + body)
        answer = b""
        while len(answer) < _MAX_ANSWER_BYTES and (data := connection.recv(16384)):
            answer += data
    first, _, content = answer.partition(b"\r\n\r\n")
    return int(first.split(b" ", 2)[1]), content


def _tls(connection: Any, name: str, *, own: bool) -> Any:
    from ssl import create_default_context

    chosen = "SSL_CERT_FILE" in os.environ or "SSL_CERT_DIR" in os.environ
    context = create_default_context(cafile=_TRUST if own and not chosen else None)
    return context.wrap_socket(connection, server_hostname=name)


def _headers(host: str, region: str, body: bytes) -> dict[str, str]:
    """The request's headers, signature included."""
    key, secret, token = _credentials()
    now = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    headers = {
        "content-length": str(len(body)),
        "content-type": "application/x-amz-json-1.1",
        "host": host,
        "x-amz-date": now,
        "x-amz-target": "TrentService.Decrypt",
    }
    if token:
        headers["x-amz-security-token"] = token
    scope = f"{now[:8]}/{region}/kms/aws4_request"
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    request = f"POST\n/\n\n{lines}\n{names}\n{hexdigest(body)}"
    text = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{hexdigest(request.encode())}"
    signature = _signature(secret, scope, text)
    headers["authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    headers["connection"] = "close"
    return headers


def _signature(secret: str, scope: str, text: str) -> str:
    from hmac import digest

    key = f"AWS4{secret}".encode()
    for part in (*scope.split("/"), text):
        key = digest(key, part.encode(), "sha256")
    return key.hex()


def _credentials() -> tuple[str, str, str]:
    """Access key, secret key and session token."""
    from litelambda_serving.store import container_credentials

    if container_credentials.available():
        found = container_credentials.credentials()
        return found["access_key_id"], found["secret_access_key"], found["token"]
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
    key, secret, token = (os.environ.get(name, "") for name in names)
    if not key or not secret:
        raise TrustError("a model is encrypted with a key of KMS, but AWS_ACCESS_KEY_ID is not set")
    return key, secret, token
