"""Events of an API Gateway HTTP API in payload format 2.0, as the Runtime API hands them to a handler."""

from __future__ import annotations

import base64
import json
import time
import uuid
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["http_event"]

_HOST = "a1b2c3d4e5.execute-api.eu-west-1.amazonaws.com"
_TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")
_ROUTE = "ANY /{proxy+}"


def http_event(path: str, headers: Mapping[str, str], body: bytes, *, method: str = "POST") -> bytes:
    """The event of a request.

    Args:
        path: decoded, as an HTTP API hands it on.
        headers: by lower-cased name.
        body: in base64 unless its content type is one of text.
        method: HTTP method.
    """
    sent = {"accept": "*/*", "host": _HOST, "user-agent": "bench", **headers}
    is_text = sent.get("content-type", "").startswith(_TEXT_TYPES) and "content-encoding" not in sent
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": _ROUTE,
        "rawPath": path,
        "rawQueryString": "",
        "headers": sent,
        "requestContext": _context(method, path, sent),
        "body": body.decode() if is_text else base64.b64encode(body).decode(),
        "isBase64Encoded": not is_text,
    }
    return json.dumps(event).encode()


def _context(method: str, path: str, headers: Mapping[str, str]) -> dict[str, Any]:
    now = time.time()
    return {
        "accountId": "000000000000",
        "apiId": "local",
        "domainName": headers["host"],
        "domainPrefix": "local",
        "http": {
            "method": method,
            "path": path,
            "protocol": "HTTP/1.1",
            "sourceIp": "127.0.0.1",
            "userAgent": headers["user-agent"],
        },
        "requestId": str(uuid.uuid4()),
        "routeKey": _ROUTE,
        "stage": "$default",
        "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
        "timeEpoch": int(now * 1000),
    }
