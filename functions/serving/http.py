"""HTTP as Lambda sees it: events of API Gateway v2 and v1, Function URLs and load balancers ⇄ Request and Response.

The one place that maps errors to statuses. Knows no model protocol.
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64

from serving import errors

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["MAX_BODY_BYTES", "Request", "Response", "request_from_event", "response_to_event", "status_of"]

MAX_BODY_BYTES = 6 * 1024 * 1024
"""Lambda's limit on a synchronous request; held against the decoded body too, so that gzip cannot widen it."""

MAX_RESPONSE_BYTES = 6 * 1024 * 1024 - 1024
"""Lambda's limit on a synchronous response, less room for the envelope."""

# Most specific first: the first class that matches decides.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.ModelNotFoundError, 404),
    (errors.MethodNotAllowedError, 405),
    (errors.PayloadTooLargeError, 413),
    (errors.UnsupportedError, 501),
    (errors.RequestError, 400),
    (errors.StoreUnavailableError, 503),
)


class Request:
    """One HTTP request.

    Attributes:
        method: upper case.
        path: without the stage, still percent-encoded, so that `%2F` is no slash.
        headers: values by lower-cased name.
        body: decoded of base64 and gzip.
    """

    __slots__ = ("body", "headers", "method", "path")

    def __init__(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body


class Response:
    """One HTTP response.

    Attributes:
        status: HTTP status.
        body: text goes out as it is, bytes as base64.
        content_type: of the body.
        headers: further ones.
        model, version, route: what answered, for the log line; "" and 0 where nothing did.
    """

    __slots__ = ("body", "content_type", "headers", "model", "route", "status", "version")

    def __init__(
        self,
        status: int,
        body: str | bytes,
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        route: str = "",
        model: str = "",
        version: int = 0,
    ) -> None:
        self.status = status
        self.body = body
        self.content_type = content_type
        self.headers = headers or {}
        self.route = route
        self.model = model
        self.version = version


def status_of(error: Exception) -> int:
    """HTTP status of an error: 4xx for the client's fault, 503 for a passing one, 500 for any other of ours."""
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def request_from_event(event: Mapping[str, Any]) -> Request:
    """Read a request out of an event.

    Args:
        event: of an API Gateway HTTP API (payload 2.0) or REST API (1.0), a Function URL or an ALB.

    Raises:
        MalformedRequestError: no such event, or a body that is not what it says it is.
        PayloadTooLargeError: a body over `MAX_BODY_BYTES`.
    """
    context = event.get("requestContext") if isinstance(event, dict) else None
    if not isinstance(context, dict):
        raise errors.MalformedRequestError(
            "not an HTTP event: expected one of an API Gateway (payload 2.0 or 1.0), a Function URL or an ALB"
        )
    if event.get("version") == "2.0":
        method, path = context["http"]["method"], event["rawPath"]
        stage = context.get("stage", "$default")
        if stage != "$default" and path.startswith(f"/{stage}/"):
            path = path[len(stage) + 1 :]
    else:
        method, path = event["httpMethod"], event["path"]
    headers = _headers(event)
    return Request(method.upper(), path, headers, _body(event, headers))


def response_to_event(response: Response, event: Mapping[str, Any]) -> dict[str, Any]:
    """Put a response into the form that the event's sender expects."""
    answer: dict[str, Any] = {"statusCode": response.status}
    headers = {"Content-Type": response.content_type, **response.headers}
    if "elb" in event.get("requestContext", ()):
        answer["statusDescription"] = f"{response.status} {_REASONS.get(response.status, 'Unknown')}"
        if "multiValueHeaders" in event:
            answer["multiValueHeaders"] = {name: [value] for name, value in headers.items()}
    if "multiValueHeaders" not in answer:
        answer["headers"] = headers
    if isinstance(response.body, str):
        answer["body"], answer["isBase64Encoded"] = response.body, False
    else:
        answer["body"], answer["isBase64Encoded"] = b2a_base64(response.body, newline=False).decode(), True
    return answer


_REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def _headers(event: Mapping[str, Any]) -> dict[str, str]:
    many = event.get("multiValueHeaders")
    if many:
        return {name.lower(): ",".join(values) for name, values in many.items()}
    return {name.lower(): value for name, value in (event.get("headers") or {}).items()}


def _body(event: Mapping[str, Any], headers: Mapping[str, str]) -> bytes:
    body = event.get("body") or ""
    if event.get("isBase64Encoded"):
        _check_length(len(body) * 3 // 4 - 2)
        try:
            data = a2b_base64(body, strict_mode=True)
        except Base64Error as error:
            raise errors.MalformedRequestError(f"the body is marked as base64 but is not: {error}") from error
    else:
        data = body.encode("utf-8", "surrogatepass")
    # By its magic number, not by Content-Encoding: some gateways decompress and leave the header as it was.
    if data[:2] == b"\x1f\x8b":
        data = _gunzip(data)
    elif headers.get("content-encoding", "").lower() == "deflate":
        data = _inflate(data)
    _check_length(len(data))
    return data


def _gunzip(data: bytes) -> bytes:
    return _decompress(data, 16 + 15)


def _inflate(data: bytes) -> bytes:
    return _decompress(data, 15)


def _decompress(data: bytes, window_bits: int) -> bytes:
    """Decompress no more than the limit and one byte, so that a bomb costs no memory."""
    import zlib

    decompressor = zlib.decompressobj(window_bits)
    try:
        plain = decompressor.decompress(data, MAX_BODY_BYTES + 1)
    except zlib.error as error:
        raise errors.MalformedRequestError(f"the compressed body is damaged: {error}") from error
    _check_length(len(plain))
    if not decompressor.eof:
        raise errors.MalformedRequestError("the compressed body is cut short")
    return plain


def _check_length(length: int) -> None:
    if length > MAX_BODY_BYTES:
        raise errors.PayloadTooLargeError(
            f"the request body exceeds {MAX_BODY_BYTES} bytes, the limit of a synchronous request: "
            "send fewer rows at a time, or score the file in batch"
        )
