"""The local gateway over real HTTP: what it does to requests, as API Gateway does."""

from __future__ import annotations

import base64
import json
import os
import socket
import threading
from pathlib import Path

import pytest
import uvicorn

from litelambda.commands import gateway
from litelambda.commands.gateway import MAX_PAYLOAD_BYTES, Route, routes_of_template
from litelambda.commands.serve import serve
from litelambda.common.paths import TEMPLATE
from support.http_gateway import running, send


def echo(event, context):
    """Answer with the event, so that tests see what a handler would."""
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(event)}


@pytest.fixture(scope="module")
def port():
    with running(echo) as port:
        yield port


def event_of(port, *args, **kwargs):
    status, _, body = send(port, *args, **kwargs)
    assert status == 200
    return json.loads(body)


def test_events_have_payload_format_2(port):
    """Path, query, method and headers stand where a function looks for them."""
    event = event_of(port, "GET", "/v1/models/my%20model?x=1&y=", headers={"X-Mixed-Case": "a", "User-Agent": "me"})
    assert event["version"] == "2.0"
    assert event["routeKey"] == "ANY /v1/{proxy+}"
    assert event["rawPath"] == event["requestContext"]["http"]["path"] == "/v1/models/my model"  # decoded, as there
    assert event["pathParameters"] == {"proxy": "models/my model"}
    assert event["queryStringParameters"] == {"x": "1", "y": ""}
    assert event["headers"]["x-mixed-case"] == "a"
    assert event["requestContext"]["http"]["method"] == "GET"
    assert event["requestContext"]["http"]["userAgent"] == "me"
    assert "body" not in event


@pytest.mark.parametrize(
    ("content_type", "extra", "encoded"),
    [
        ("application/json", {}, False),
        ("text/plain; charset=utf-8", {}, False),
        ("Application/JSON", {}, False),
        ("application/octet-stream", {}, True),
        ("application/json", {"Content-Encoding": "gzip"}, True),
        (None, {}, True),
    ],
)
def test_bodies_are_base64_by_content_type(port, content_type, extra, encoded):
    """Text travels as it is; bytes, compressed bodies and unnamed ones as base64."""
    headers = {**({"Content-Type": content_type} if content_type else {}), **extra}
    event = event_of(port, "POST", "/v1/models/m:predict", body=b"{}", headers=headers)
    assert event["isBase64Encoded"] is encoded
    assert (base64.b64decode(event["body"]) if encoded else event["body"].encode()) == b"{}"


def test_text_that_is_none_travels_as_bytes(port):
    """Bytes that claim to be JSON but are not UTF-8 arrive whole."""
    event = event_of(port, "POST", "/v1/x", body=b"\xff\xfe", headers={"Content-Type": "application/json"})
    assert (base64.b64decode(event["body"]), event["isBase64Encoded"]) == (b"\xff\xfe", True)


def test_chunked_bodies_arrive_whole(port):
    """A client that streams is understood."""
    event = event_of(port, "POST", "/v1/x", body=iter([b"ab", b"cd"]), headers={"Content-Type": "text/plain"})
    assert event["body"] == "abcd"


@pytest.mark.parametrize(("method", "path"), [("GET", "/elsewhere"), ("POST", "/v3/x"), ("GET", "/v1/")])
def test_paths_without_a_route_are_the_gateways_404(port, method, path):
    """What the template does not route never reaches the function."""
    assert send(port, method, path)[0::2] == (404, b'{"message": "Not Found"}')


@pytest.mark.parametrize("size", [MAX_PAYLOAD_BYTES + 1, 7_000_000])
def test_the_limits_of_the_gateway_and_of_lambda(port, size):
    """Over 10 MiB is too much for the gateway, over 6 MiB as an event too much for Lambda."""
    status, _, body = send(port, "POST", "/v1/x", body=b"a" * size, headers={"Content-Type": "text/plain"})
    assert (status, body) == (413, b'{"message": "Request Entity Too Large"}')


def test_an_answer_over_lambdas_limit_is_a_500():
    """Lambda refuses it, and the gateway says what it says of any failed function."""
    big = {"statusCode": 200, "body": "a" * gateway.MAX_INVOCATION_BYTES}
    with running(lambda event, context: big) as port:
        assert send(port, "GET", "/")[0::2] == (500, b'{"message": "Internal Server Error"}')


def test_a_handler_that_raises_is_a_500():
    """A function's exception is the gateway's 500, and the gateway goes on."""
    calls = []

    def failing_once(event, context):
        calls.append(event)
        if len(calls) == 1:
            raise RuntimeError("broken")
        return {"statusCode": 204}

    with running(failing_once) as port:
        assert send(port, "GET", "/")[0::2] == (500, b'{"message": "Internal Server Error"}')
        status, headers, body = send(port, "GET", "/")
        assert (status, body) == (204, b"")
        assert "content-length" not in headers


def test_a_slow_handler_is_a_503(monkeypatch):
    """A function slower than the gateway waits is answered for."""
    monkeypatch.setattr(gateway, "TIMEOUT_SECONDS", 0.1)
    release = threading.Event()

    def slow(event, context):
        release.wait(10)
        return {"statusCode": 200}

    with running(slow) as port:
        try:
            assert send(port, "GET", "/")[0::2] == (503, b'{"message": "Service Unavailable"}')
        finally:
            release.set()


def test_binary_answers_are_decoded():
    """A base64 answer reaches the client as bytes, with its own headers."""
    answer = {
        "statusCode": 200,
        "headers": {"Content-Type": "application/octet-stream", "X-Own": "1"},
        "body": base64.b64encode(b"\0\xff").decode(),
        "isBase64Encoded": True,
    }
    with running(lambda event, context: answer) as port:
        status, headers, body = send(port, "GET", "/")
    assert (status, body, headers["x-own"]) == (200, b"\0\xff", "1")


def test_head_has_the_length_that_the_handler_says():
    """A body that a handler leaves out has its length all the same."""
    answer = {"statusCode": 200, "headers": {"Content-Length": "17"}, "body": ""}
    with running(lambda event, context: answer) as port:
        status, headers, body = send(port, "HEAD", "/")
    assert (status, headers["content-length"], body) == (200, "17", b"")


def test_a_custom_domains_mapping_is_in_the_event_and_in_no_route():
    """A path below the mapping's key takes the route of the rest, and the handler sees all of it."""
    with running(echo, base_path="/ml") as port:
        for path, key in (("/ml/v1/x", "ANY /v1/{proxy+}"), ("/ml", "ANY /"), ("/v1/x", "ANY /v1/{proxy+}")):
            event = event_of(port, "GET", path)
            assert (event["rawPath"], event["routeKey"]) == (path, key)


def test_preflight_routes_are_there_with_cors_alone(tmp_path):
    """A conditional route of the template is an OPTIONS route for browsers, which sign no preflight request."""
    template = tmp_path / "template.yaml"
    template.write_text("""
Resources:
  Route: {Type: AWS::ApiGatewayV2::Route, Properties: {RouteKey: "ANY /v1/{proxy+}"}}
  Preflight: {Type: AWS::ApiGatewayV2::Route, Condition: HasCors, Properties: {RouteKey: "OPTIONS /v1/{proxy+}"}}
""")
    assert [route.key for route in routes_of_template(template)] == ["ANY /v1/{proxy+}"]
    keys = [route.key for route in routes_of_template(template, with_cors=True)]
    assert keys == ["OPTIONS /v1/{proxy+}", "ANY /v1/{proxy+}"]


@pytest.mark.parametrize(
    "path", ["/", "/healthz", "/openapi.json", "/v1/models/tiny:predict", "/v2", "/v2/models/tiny"]
)
def test_a_preflight_never_meets_a_signed_route_with_cors(path):
    """With CORS on, OPTIONS has a route of its own on every path of the template; without, it is one method of any."""
    for with_cors, method in ((True, "OPTIONS"), (False, "ANY")):
        routes = routes_of_template(TEMPLATE, with_cors=with_cors)
        first = next(route for route in routes if route.match("OPTIONS", path) is not None)
        assert first.key.startswith(method)


def test_small_answers_are_sent_at_once(monkeypatch):
    """Nagle's algorithm is off on the connections of `litelambda serve`: a body never waits for its head's receipt."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    monkeypatch.setattr(uvicorn.Config, "bind_socket", lambda config: listener)
    accepted = []

    def accept_one(server, sockets):
        with socket.create_connection(sockets[0].getsockname()):
            connection, _ = sockets[0].accept()
            accepted.append(connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            connection.close()

    monkeypatch.setattr(uvicorn.Server, "run", accept_one)
    monkeypatch.setattr(os, "environ", {**os.environ})
    serve(Path(__file__).parent.as_uri(), host="127.0.0.1", port=0)
    listener.close()
    assert accepted
    assert accepted[0] != 0


def test_routes_match_as_in_api_gateway():
    """Exact routes come before greedy ones, and a greedy one needs something to take."""
    assert Route("GET /").match("GET", "/") == {}
    assert Route("GET /").match("POST", "/") is None
    assert Route("ANY /v2").match("GET", "/v2/") == {}
    assert Route("ANY /v2").match("GET", "/v2/x") is None
    assert Route("ANY /v1/{proxy+}").match("PUT", "/v1/a/b") == {"proxy": "a/b"}
    assert Route("ANY /v1/{proxy+}").match("GET", "/v1/") is None
    keys = [route.key for route in routes_of_template(TEMPLATE)]
    assert keys.index("ANY /") < keys.index("ANY /v1/{proxy+}")
