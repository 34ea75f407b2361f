"""HTTP as Lambda sees it: events of API Gateway v2 and v1, Function URLs and load balancers ⇄ Request and Response.

The one place that maps errors to statuses, and that knows Lambda's limits. Knows no model protocol.
"""

from __future__ import annotations

from binascii import a2b_base64, b2a_base64
from math import inf

from litelambda_serving import errors
from litelambda_serving.json_codec import loads, pays_native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Any

    from typing_extensions import Buffer

    from litelambda_serving.access import Policy, Rights

__all__ = [
    "MAX_BODY_BYTES", "MAX_REFERENCE_BYTES", "MAX_RESPONSE_BYTES", "RAW_TYPES", "ROUTING_KEY_HEADER",
    "VERSION_HEADER", "Request", "Response", "StreamedResponse", "add_headers", "check_body_bytes",
    "check_response_bytes", "decompressed", "finish", "public_message", "read_event", "request_from_event",
    "request_of", "response_to_event", "segments", "sent_bytes", "status_of",
]  # fmt: skip

MAX_BODY_BYTES = 6 * 1024 * 1024
"""Lambda's limit on a synchronous request; the decoded body is checked against it too, so that gzip cannot widen it."""

_FEWER_ROWS = "send fewer rows at a time, or score the file in batch"
_STREAMED = ", or have answers streamed: deploy with ResponseStreaming=on and Bootstrap=lean"

MAX_RESPONSE_BYTES = 6 * 1024 * 1024 - 1024
"""Lambda's limit on a synchronous response, less room for the envelope."""

MAX_REFERENCE_BYTES = 2048
"""Of a body that only names another one, see `litelambda_serving.references`."""

_LARGE_EVENT_BYTES = 16 * 1024  # from here on it is worth cutting its body out in C
_MIN_COMPRESSED_BYTES = 2048  # compressing what fits a packet or two gains no time

RAW_TYPES = ("application/octet-stream", "application/x-npy", "image/")
"""Content types whose body is not JSON: its first bytes do not say what it is."""

# Most specific first: the first class that matches decides.
_STATUSES: tuple[tuple[type[Exception], int], ...] = (
    (errors.AccessDeniedError, 403),
    (errors.ModelNotFoundError, 404),
    (errors.MethodNotAllowedError, 405),
    (errors.PayloadTooLargeError, 413),
    (errors.UnsupportedEncodingError, 415),
    (errors.UnsupportedMediaTypeError, 415),
    (errors.UnsupportedError, 501),
    (errors.RequestError, 400),
    (errors.StoreUnavailableError, 503),
    (errors.BusyError, 503),
    (errors.LateError, 504),
)


VERSION_HEADER = "X-Model-Version"
"""Of a prediction: the version that made all of it."""

ROUTING_KEY_HEADER = "x-routing-key"
"""Requests with the same value see the same version of a canary."""


class Request:
    """One HTTP request.

    Attributes:
        method: upper case.
        path: without `base_path`, and percent-encoded where the sender leaves it so: there `%2F` is not a slash.
        headers: values by lower-cased name; the content type in lower case.
        body: decoded of base64 and compression.
        deadline: `time.monotonic()` at which an answer comes too late.
        base_path: what came before `path`: the stage, or what the setting BASE_PATH names; "" without either.
        rights: what the caller may do; None where the function has no access policy.
        request_id: for messages.
        request_store: where the bodies lie that callers may name instead of sending them; "" for nowhere.
        max_response_bytes: of an answer. More than `MAX_RESPONSE_BYTES` says that it may leave in parts, as a
            `StreamedResponse`.
    """

    __slots__ = (
        *("base_path", "body", "deadline", "headers", "max_response_bytes", "method", "path"),
        *("request_id", "request_store", "rights"),
    )

    def __init__(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: Buffer,
        deadline: float = inf,
        base_path: str = "",
        rights: Rights | None = None,
    ) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.body = body
        self.deadline = deadline
        self.base_path = base_path
        self.rights = rights
        self.max_response_bytes: float = MAX_RESPONSE_BYTES
        self.request_id = self.request_store = ""

    def allow(self, action: str, model: str = "") -> None:
        """Refuse the request unless its caller may do this: what every route asks before it touches a model.

        Args:
            action: one of `litelambda_serving.access.ACTIONS`.
            model: its name; "" where the answer is about the server.

        Raises:
            AccessDeniedError: the function has an access policy, which does not allow it.
        """
        if self.rights is not None:
            self.rights.check(action, model)

    def may(self, action: str, model: str) -> bool:
        """Whether the caller may do this with a model, for lists of models."""
        return self.rights is None or self.rights.has(action, model)


class Response:
    """One HTTP response.

    Attributes:
        status: HTTP status.
        body: text goes out as it is, bytes as base64.
        content_type: of the body.
        headers: further ones.
        model, version, route: what answered, for the log line; "" and 0 for an error.
        notes: further fields of the log line.
        timing: of a prediction, see `litelambda_serving.servable.Statistics.add_request`.
    """

    __slots__ = ("body", "content_type", "headers", "model", "notes", "route", "status", "timing", "version")

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
        self.notes: Mapping[str, Any] | None = None
        self.timing: tuple[int, ...] | None = None


class StreamedResponse(Response):
    """A response whose body is made while it is sent, for requests with a larger `max_response_bytes`.

    Attributes:
        chunks: the parts of the body. Each is made when it is asked for; what that raises comes too late for a status,
            so that whoever sends the response breaks it off.
        fault: what ended the chunks early where the body itself says so; None before their end, and without one.
    """

    __slots__ = ("chunks", "fault")

    def __init__(
        self,
        status: int,
        chunks: Iterator[bytes],
        *,
        content_type: str = "application/json",
        headers: Mapping[str, str] | None = None,
        route: str = "",
        model: str = "",
        version: int = 0,
    ) -> None:
        super().__init__(
            status, b"", content_type=content_type, headers=headers, route=route, model=model, version=version
        )
        self.chunks = chunks
        self.fault: Exception | None = None


def status_of(error: Exception) -> int:
    """HTTP status of an error: 4xx for the client's fault, 503 for a transient one, 500 for any other of ours.

    >>> status_of(errors.ModelNotFoundError("no such model"))
    404
    """
    return next((status for kind, status in _STATUSES if isinstance(error, kind)), 500)


def read_event(payload: bytes) -> Any:
    """Read an event from its JSON; a large body may be UTF-8 bytes in it, where others have text.

    Raises:
        ValueError, RecursionError: see `litelambda_serving.json_codec.loads`.
    """
    if len(payload) < _LARGE_EVENT_BYTES or not pays_native(len(payload)):
        return loads(payload)
    from litelambda_serving.native import loads_event

    return loads_event(payload)


def public_message(error: Exception, request_id: str) -> str:
    """What the client learns of an error: its own faults; ours stay in the log."""
    status = status_of(error)
    told = isinstance(error, (errors.BusyError, errors.LateError))
    if (isinstance(error, errors.ServingError) and status < 500) or status == 501 or told:
        return str(error)
    if status == 503:
        return f"the model's store is not available at the moment, try again (request {request_id})"
    return f"internal error (request {request_id})"


def request_from_event(event: Any, deadline: float = inf, base_path: str = "", policy: Policy | None = None) -> Request:
    """Read a request from an event.

    Args:
        event: of an API Gateway HTTP API (payload 2.0 or 1.0) or REST API, a Function URL or an ALB; see `read_event`.
        deadline: `time.monotonic()` at which an answer comes too late.
        base_path: under which the API is published, "/ml"; cut off where a path begins with it.
        policy: who may do what; the body of a caller without any right is not read.

    Raises:
        MalformedRequestError: no such event, or a body that is not what it says it is.
        PayloadTooLargeError: a body over `MAX_BODY_BYTES`.
        UnsupportedEncodingError: a body compressed in another way than gzip or deflate.
    """
    try:
        context = event["requestContext"]
        version = event.get("version")
        if version == "2.0":
            method, path = context["http"]["method"].upper(), event["rawPath"]
        else:
            method, path = event["httpMethod"].upper(), event["path"]
        # An HTTP API's stage is in the path; a REST API, whose events have no version, leaves its own out, and says
        # the whole path elsewhere.
        stage = version and context.get("stage", "$default") != "$default"
        base = _base_path(path, base_path, context if stage else {}) if base_path or stage else ""
        shown = base if version else _shown_base(path, base, context)
        headers, body = _headers(event), event.get("body") or ""
    except (LookupError, TypeError, AttributeError) as error:
        raise _not_http() from error
    # An authorizer's event looks like a request: an answer to it would let the caller in.
    if type(path) is not str or type(body) not in (str, bytearray) or "methodArn" in event or "routeArn" in event:
        raise _not_http()
    rights = None if policy is None else policy.rights_of(event)
    data = b"" if rights is not None and not rights else _decoded_body(body, event.get("isBase64Encoded"), headers)
    return Request(method, path[len(base) :], headers, data, deadline, shown, rights)


def request_of(
    method: str,
    path: str,
    headers: dict[str, str],
    body: bytes,
    deadline: float,
    base_path: str,
    policy: Policy | None,
) -> Request:
    """A request that came over HTTP itself, whose caller is anonymous to an access policy.

    Args:
        method: HTTP method.
        path: percent-encoded.
        headers: by lower-cased name.
        body: as it came.
        deadline: see `request_from_event`.
        base_path: likewise.
        policy: likewise.

    Raises:
        PayloadTooLargeError, UnsupportedEncodingError: see `request_from_event`.
    """
    if "content-type" in headers:
        headers["content-type"] = headers["content-type"].lower()
    base = _base_path(path, base_path, {}) if base_path else ""
    rights = None if policy is None else policy.rights_of({})
    data = b"" if rights is not None and not rights else decompressed(body, headers)
    return Request(method.upper(), path[len(base) :], headers, data, deadline, base, rights)


def _not_http() -> errors.MalformedRequestError:
    return errors.MalformedRequestError(
        "not an HTTP event: expected one of an API Gateway (payload 2.0 or 1.0), a Function URL or an ALB"
    )


def _base_path(path: str, base_path: str, context: Mapping[str, Any]) -> str:
    """What comes before the path in question: what the API is published under, else the context's stage.

    A stage is part of the path only under the API's own domain, whose first label is the API's id; a custom domain has
    its mapping's key instead.
    """
    if base_path and path.startswith(base_path) and path[len(base_path) : len(base_path) + 1] in ("/", ""):
        return base_path
    stage = f"/{context.get('stage')}"
    is_own_domain = "stage" in context and context.get("domainPrefix") == context.get("apiId")
    return stage if is_own_domain and (path.startswith(stage + "/") or path == stage) else ""


def _shown_base(path: str, base: str, context: Mapping[str, Any]) -> str:
    """What a client sees before the path: of a REST API's own domain also the stage, which its events' paths lack."""
    whole = context.get("path")
    return whole[: -len(path)] + base if type(whole) is str and path and whole.endswith(path) else base


def response_to_event(response: Response, event: Any) -> dict[str, Any]:
    """Put a response into the form that the event's sender expects."""
    answer: dict[str, Any] = {"statusCode": response.status}
    headers = {"Content-Type": response.content_type, **response.headers}
    context = event.get("requestContext") if isinstance(event, dict) else None
    if isinstance(context, dict) and "elb" in context:
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
    204: "No Content",
    304: "Not Modified",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    415: "Unsupported Media Type",
    500: "Internal Server Error",
    501: "Not Implemented",
    503: "Service Unavailable",
}


def _headers(event: Mapping[str, Any]) -> dict[str, str]:
    many = event.get("multiValueHeaders")
    if many:
        headers = {name.lower(): ",".join(values) for name, values in many.items()}
    else:
        headers = {name.lower(): f"{value}" for name, value in (event.get("headers") or {}).items()}
    if "content-type" in headers:
        headers["content-type"] = headers["content-type"].lower()
    return headers


def _decoded_body(body: str | bytearray, is_base64: Any, headers: Mapping[str, str]) -> Any:
    if not is_base64:
        data: Any = body.encode("utf-8", "surrogatepass") if isinstance(body, str) else body
        length = len(data)
    else:
        length = len(body) * 3 // 4 - 2
        check_body_bytes(length)
        try:
            data = _decode_base64(body)
        except ValueError as error:  # binascii's own is one, and it has another for what is not ASCII
            raise errors.MalformedRequestError(f"the body is marked as base64 but is not: {error}") from error
    check_body_bytes(length)
    return decompressed(data, headers)


def decompressed(data: Any, headers: Mapping[str, str], max_bytes: int = MAX_BODY_BYTES) -> Any:
    """A body without its compression.

    Args:
        data: as it came.
        headers: that came with it.
        max_bytes: what it may unfold to.

    Raises:
        MalformedRequestError: damaged.
        PayloadTooLargeError: it unfolds to more.
        UnsupportedEncodingError: compressed in another way than gzip or deflate.
    """
    encoding = ""
    if "content-encoding" in headers:
        from litelambda_serving.bodies.compression import content_encoding

        encoding = content_encoding(headers["content-encoding"])
    if data[:2] == b"\x1f\x8b" and (encoding or not headers.get("content-type", "").startswith(RAW_TYPES)):
        # By its magic number, not by Content-Encoding: some gateways decompress and leave the header as it was.
        encoding = "gzip"
    elif encoding != "deflate":
        return data
    from litelambda_serving.bodies.compression import decompress, is_zlib

    return decompress(data, encoding, max_bytes) if encoding == "gzip" or is_zlib(data) else data


def _decode_base64(body: str | bytearray) -> Any:
    if not pays_native(len(body) // 8):  # binascii is that much faster than Python is with JSON
        return a2b_base64(body, strict_mode=True)
    from litelambda_serving.native import decode_base64

    return decode_base64(body)


def segments(path: str) -> list[str]:
    """Split a path at its slashes and percent-decode each part, so that an encoded slash stays inside its part.

    >>> segments("models/a%2Fb/ready")
    ['models', 'a/b', 'ready']
    """
    parts = path.split("/")
    if "%" not in path:
        return parts
    from urllib.parse import unquote

    return [unquote(part) for part in parts]


def finish(response: Response, headers: Mapping[str, str], max_bytes: float = MAX_RESPONSE_BYTES) -> Response:
    """Compress a prediction's body if the client accepts that and it is worth it, and check that it can be sent.

    Args:
        response: with status 200; clients choke on compressed errors and metadata.
        headers: of the request.
        max_bytes: of its answer.

    Raises:
        PayloadTooLargeError: over that limit.
    """
    body = response.body
    if "accept-encoding" in headers and len(body) >= _MIN_COMPRESSED_BYTES:
        from litelambda_serving.bodies.compression import accepted_encoding, compress

        encoding = accepted_encoding(headers["accept-encoding"])
        if encoding:
            body = response.body = compress(body.encode() if isinstance(body, str) else body, encoding)
            add_headers(response, {"Content-Encoding": encoding, "Vary": "Accept-Encoding"})
    check_response_bytes(sent_bytes(body), max_bytes)
    return response


def sent_bytes(body: str | bytes) -> int:
    """Bytes that a body takes in the function's answer: JSON with its quotes escaped, anything else in base64.

    >>> sent_bytes('["a"]'), sent_bytes(bytes(3))
    (7, 4)
    """
    if isinstance(body, str):
        return len(body) + body.count('"') + body.count("\\")
    return -(-len(body) // 3) * 4


def add_headers(response: Response, headers: Mapping[str, str]) -> None:
    """Add headers to a response; `Vary` is a list that grows."""
    vary = response.headers.get("Vary")
    response.headers = {**response.headers, **headers}
    if vary and "Vary" in headers:
        response.headers["Vary"] = f"{vary}, {headers['Vary']}"


def check_response_bytes(
    length: int, max_bytes: float | None = None, what: str = "predictions", remedy: str = ""
) -> None:
    """Refuse an answer of so many bytes before or after it is made.

    Raises:
        PayloadTooLargeError: over the limit, by default Lambda's on a synchronous response.
    """
    max_bytes = MAX_RESPONSE_BYTES if max_bytes is None else max_bytes
    if length > max_bytes:
        kind = "synchronous" if max_bytes == MAX_RESPONSE_BYTES else "streamed"
        remedy = remedy or _FEWER_ROWS + (_STREAMED if kind == "synchronous" else "")
        raise errors.PayloadTooLargeError(
            f"the {what} take {length} bytes, over the {max_bytes} of a {kind} response: {remedy}"
        )


def check_body_bytes(length: int) -> None:
    """Refuse a body of so many bytes.

    Raises:
        PayloadTooLargeError: over Lambda's limit on a synchronous request.
    """
    if length > MAX_BODY_BYTES:
        raise errors.PayloadTooLargeError(
            f"the request body exceeds {MAX_BODY_BYTES} bytes, the limit of a synchronous request: {_FEWER_ROWS}"
        )
