"""A local API gateway in front of the real handler, for `litelambda serve` and the tests.

It is faithful to an API Gateway HTTP API where a client or a handler could tell the difference: events in payload
format 2.0, lower-cased and joined headers, base64 by content type, the routes of the template, one request at a time in
an execution environment, and the size limits and error bodies of the gateway and of Lambda. It does not check
signatures or throttle.
"""

from __future__ import annotations

import asyncio
import base64
import json
import time
import traceback
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote

import yaml

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping, Sequence
    from pathlib import Path

    Handler = Callable[[dict[str, Any], "LambdaContext"], dict[str, Any]]
    Message = MutableMapping[str, Any]

__all__ = ["Gateway", "LambdaContext", "Route", "make_event", "routes_of_template"]

MAX_PAYLOAD_BYTES = 10 * 1024 * 1024
"""Of an HTTP API, request and response."""

MAX_INVOCATION_BYTES = 6_291_556
"""Of a synchronous Lambda invocation, each way, as JSON."""

TIMEOUT_SECONDS = 30
"""Of an HTTP API's integration."""

_TEXT_TYPES = ("text/", "application/json", "application/javascript", "application/xml")


@dataclass(frozen=True)
class Route:
    """One route of an HTTP API.

    Attributes:
        key: as in the template, "GET /" or "ANY /v1/{proxy+}".
    """

    key: str

    def match(self, method: str, path: str) -> dict[str, str] | None:
        """Path parameters if the route takes this request, else None."""
        route_method, _, pattern = self.key.partition(" ")
        if route_method not in ("ANY", method):
            return None
        head, brace, name = pattern.partition("{")
        if not brace:
            return {} if path in (pattern, pattern + "/") else None
        if path.startswith(head) and len(path) > len(head):
            return {name.removesuffix("+}"): path[len(head) :]}
        return None


def routes_of_template(template: Path, *, with_cors: bool = False) -> list[Route]:
    """Read the HTTP API's routes out of a template, most specific first, as API Gateway chooses them.

    Args:
        template: its path.
        with_cors: whether there is an origin that may call from a browser, on which all conditional routes depend:
            preflight requests carry no signature.
    """

    class Loader(yaml.SafeLoader):
        """YAML with CloudFormation's tags, whose values do not matter here."""

    Loader.add_multi_constructor("!", lambda _loader, _suffix, _node: None)
    resources = yaml.load(template.read_text(), Loader)["Resources"]  # noqa: S506 - derived from SafeLoader
    keys = [
        resource["Properties"]["RouteKey"]
        for resource in resources.values()
        if resource["Type"] == "AWS::ApiGatewayV2::Route" and (with_cors or "Condition" not in resource)
    ]
    return [Route(key) for key in sorted(keys, key=lambda key: ("{" in key, key.startswith("ANY"), -len(key)))]


@dataclass(frozen=True)
class LambdaContext:
    """What a handler may read of its invocation."""

    aws_request_id: str = field(default_factory=lambda: str(uuid.uuid4()))
    function_name: str = "local"
    memory_limit_in_mb: str = "512"
    invoked_function_arn: str = "arn:aws:lambda:local:000000000000:function:local"


class Gateway:
    """An ASGI application that turns requests into events and a handler's answers into responses."""

    def __init__(self, handler: Handler, routes: Sequence[Route], base_path: str = "") -> None:
        """Put a gateway in front of a handler.

        Args:
            handler: the function's.
            routes: of the API, most specific first.
            base_path: of a custom domain's mapping, "/ml": no part of a route's path, but of the event's.
        """
        self._handler = handler
        self._routes = routes
        self._base_path = base_path
        self._one_at_a_time = asyncio.Lock()

    async def __call__(
        self,
        scope: Message,
        receive: Callable[[], Awaitable[Message]],
        send: Callable[[Message], Awaitable[None]],
    ) -> None:
        """Answer one ASGI request; any other kind of connection is none of an API Gateway's business."""
        if scope["type"] != "http":
            return
        status, headers, body = await self._answer(scope, receive)
        if scope["method"] == "HEAD":
            headers, body = {"content-length": str(len(body)), **headers}, b""
        elif status not in (204, 304) and "content-length" not in headers:
            headers["content-length"] = str(len(body))
        raw_headers = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": raw_headers})
        await send({"type": "http.response.body", "body": body})

    async def _answer(
        self, scope: Message, receive: Callable[[], Awaitable[Message]]
    ) -> tuple[int, dict[str, str], bytes]:
        # As an HTTP API, which decodes the path before it matches it and hands it on.
        path = unquote(scope["raw_path"].decode("latin-1").partition("?")[0])
        match = self._match(scope["method"], path)
        body = await _read(receive)
        if match is None:
            return _gateway_error(404, "Not Found")
        if body is None:
            return _gateway_error(413, "Request Entity Too Large")
        event = make_event(scope, path, *match, body)
        if len(json.dumps(event)) > MAX_INVOCATION_BYTES:
            return _gateway_error(413, "Request Entity Too Large")
        async with self._one_at_a_time:
            try:
                answer = await asyncio.wait_for(
                    asyncio.to_thread(self._handler, event, LambdaContext()), TIMEOUT_SECONDS
                )
            except TimeoutError:
                return _gateway_error(503, "Service Unavailable")
            except Exception:  # noqa: BLE001 - as API Gateway: the client learns nothing, the log everything
                traceback.print_exc()
                return _gateway_error(500, "Internal Server Error")
        return _response(answer)

    def _match(self, method: str, path: str) -> tuple[Route, dict[str, str]] | None:
        if self._base_path and (path + "/").startswith(self._base_path + "/"):
            path = path[len(self._base_path) :] or "/"
        for route in self._routes:
            parameters = route.match(method, path)
            if parameters is not None:
                return route, parameters
        return None


async def _read(receive: Callable[[], Awaitable[Message]]) -> bytes | None:
    """The whole body; None when it is over the gateway's limit, whose rest is read and dropped."""
    chunks, length = [], 0
    while True:
        message = await receive()
        length += len(message.get("body", b""))
        if length <= MAX_PAYLOAD_BYTES:
            chunks.append(message.get("body", b""))
        if not message.get("more_body"):
            return b"".join(chunks) if length <= MAX_PAYLOAD_BYTES else None


def make_event(scope: Message, path: str, route: Route, parameters: dict[str, str], body: bytes) -> dict[str, Any]:
    """A request as an event in payload format 2.0.

    Args:
        scope: of the ASGI request.
        path: decoded.
        route: that takes the request.
        parameters: of its path.
        body: in base64 unless its content type is one of text.
    """
    headers: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]},{text}" if key in headers else text
    query = scope["query_string"].decode("latin-1")
    now = time.time()
    event: dict[str, Any] = {
        "version": "2.0",
        "routeKey": route.key,
        "rawPath": path,
        "rawQueryString": query,
        "headers": headers,
        "requestContext": {
            "accountId": "000000000000",
            "apiId": "local",
            "domainName": headers.get("host", "localhost"),
            "domainPrefix": "local",
            "http": {
                "method": scope["method"],
                "path": path,
                "protocol": f"HTTP/{scope['http_version']}",
                "sourceIp": (scope.get("client") or ("127.0.0.1", 0))[0],
                "userAgent": headers.get("user-agent", ""),
            },
            "requestId": str(uuid.uuid4()),
            "routeKey": route.key,
            "stage": "$default",
            "time": time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime(now)),
            "timeEpoch": int(now * 1000),
        },
        "isBase64Encoded": False,
    }
    if query:
        event["queryStringParameters"] = dict(parse_qsl(query, keep_blank_values=True))
    if parameters:
        event["pathParameters"] = parameters
    if body:
        event["body"], event["isBase64Encoded"] = _encode_body(body, headers)
    return event


def _encode_body(body: bytes, headers: dict[str, str]) -> tuple[str, bool]:
    content_type = headers.get("content-type", "").lower()
    if content_type.startswith(_TEXT_TYPES) and "content-encoding" not in headers:
        try:
            return body.decode(), False
        except UnicodeDecodeError:
            pass  # not the text it claims to be: it travels as bytes
    return base64.b64encode(body).decode(), True


def _response(answer: dict[str, Any]) -> tuple[int, dict[str, str], bytes]:
    if len(json.dumps(answer)) > MAX_INVOCATION_BYTES:
        return _gateway_error(500, "Internal Server Error")
    body = answer.get("body", "")
    data = base64.b64decode(body) if answer.get("isBase64Encoded") else body.encode()
    return answer["statusCode"], {name.lower(): str(value) for name, value in answer.get("headers", {}).items()}, data


def _gateway_error(status: int, message: str) -> tuple[int, dict[str, str], bytes]:
    return status, {"content-type": "application/json"}, json.dumps({"message": message}).encode()
