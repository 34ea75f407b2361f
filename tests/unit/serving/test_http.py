"""Events to requests and responses to events, for every kind of sender."""

from __future__ import annotations

import base64
import gzip
import json
import zlib
from pathlib import Path

import pytest

from litelambda_serving import errors
from litelambda_serving.http import (
    MAX_BODY_BYTES,
    MAX_RESPONSE_BYTES,
    Response,
    finish,
    request_from_event,
    response_to_event,
    sent_bytes,
    status_of,
)

EVENTS = Path(__file__).parents[2] / "events"


def event(name: str, **fields) -> dict:
    return {**json.loads((EVENTS / f"{name}.json").read_text()), **fields}


def with_body(body: bytes, **headers: str) -> dict:
    encoded = base64.b64encode(body).decode()
    return event("http_api_v2_predict", body=encoded, isBase64Encoded=True, headers=headers)


@pytest.mark.parametrize("sender", ["http_api_v2", "rest_v1", "function_url", "alb", "alb_multi_value"])
@pytest.mark.parametrize("kind", ["predict", "predict_base64"])
def test_every_sender_gives_the_same_request(sender, kind):
    """Method, path, headers and body do not depend on who wraps them, nor on base64."""
    request = request_from_event(event(f"{sender}_{kind}"))
    assert request.method == "POST"
    assert request.path == "/v1/models/tiny:predict"
    assert request.headers["content-type"].startswith("application/")
    assert "instances" in json.loads(request.body)


def test_the_stage_is_no_part_of_the_path():
    """A named stage of an HTTP API stands before the path, and is cut off."""
    staged = event("http_api_v2_predict", rawPath="/prod/v1/models/tiny:predict")
    staged["requestContext"] = {**staged["requestContext"], "stage": "prod"}
    assert request_from_event(staged).path == "/v1/models/tiny:predict"


def http_api(path, stage="$default", domain="a1b2c3d4e5", version="2.0"):
    """An HTTP API's event as AWS documents payload 2.0 and 1.0: `apiId` is a1b2c3d4e5."""
    name = {"2.0": "http_api_v2_predict", "1.0": "rest_v1_predict"}[version]
    fields = event(name, version=version, rawPath=path, path=path)
    fields["requestContext"] |= {"stage": stage, "domainPrefix": domain, "apiId": "a1b2c3d4e5"}
    return fields


@pytest.mark.parametrize(
    ("fields", "base_path", "base"),
    [
        (http_api("/prod/v1/models/tiny:predict", "prod", version="1.0"), "", "/prod"),
        (http_api("/v1/v1/models/tiny:predict", "v1"), "", "/v1"),
        (http_api("/v1/models/tiny:predict", "v1", "api"), "", ""),
        (http_api("/ml/v1/models/tiny:predict", "v1", "api"), "/ml", "/ml"),
        (http_api("/ml/v1/v1/models/tiny:predict", "prod", "api", "1.0"), "/ml/v1", "/ml/v1"),
        (http_api("/prod/v1/models/tiny:predict", "prod"), "/ml", "/prod"),
        (event("rest_v1_predict", path="/ml/v1/models/tiny:predict"), "/ml", "/ml"),
        (event("rest_v1_predict"), "", "/prod"),
        (event("rest_v1_predict"), "/v1/models/tin", "/prod"),
        (event("alb_predict", path="/ml/v1/models/tiny:predict"), "/ml", "/ml"),
    ],
)
def test_what_an_api_is_published_under_is_no_part_of_the_path(fields, base_path, base):
    """A stage counts under the API's own domain alone, whatever its name; a mapping's key is what the setting says.

    A REST API's path lacks the stage, under which its clients see it.
    """
    request = request_from_event(fields, base_path=base_path)
    assert (request.path, request.base_path) == ("/v1/models/tiny:predict", base)


def test_the_base_path_alone_is_the_root():
    """Without a slash at its end too."""
    assert request_from_event(event("rest_v1_status", path="/ml"), base_path="/ml").path == ""


def test_no_body_is_an_empty_one():
    """A GET has no body field at all."""
    assert request_from_event(event("http_api_v2_status")).body == b""


# Events as AWS documents them, cut down to what tells them from an HTTP request's.
LATTICE_V2 = {
    "version": "2.0",
    "path": "/v1/models/tiny",
    "method": "GET",
    "headers": {"host": ["x"]},
    "requestContext": {"serviceNetworkArn": "arn:aws:vpc-lattice:…", "region": "eu-west-1"},
}
LATTICE_V1 = {"raw_path": "/v1/models/tiny", "method": "GET", "headers": {}, "is_base64_encoded": False}
WEBSOCKET = {
    "headers": {"Host": "x"},
    "requestContext": {"routeKey": "$connect", "eventType": "CONNECT", "connectionId": "Yc3=", "apiId": "x"},
    "isBase64Encoded": False,
}
OTHER_EVENTS = {
    "nothing": None,
    "a list": [],
    "a string": "x",
    "a number": 5,
    "an empty object": {},
    "SQS": {"Records": []},
    "a null context": {"requestContext": None},
    "a null context of version 2.0": {"version": "2.0", "requestContext": None},
    "a context that is a list": {"requestContext": ["http"], "httpMethod": "GET", "path": "/", "version": "2.0"},
    "VPC Lattice": LATTICE_V1,
    "VPC Lattice, version 2.0": LATTICE_V2,
    "a WebSocket": WEBSOCKET,
    "a token authorizer": {"type": "TOKEN", "authorizationToken": "x", "methodArn": "arn:aws:execute-api:…"},
    "a request authorizer": event("rest_v1_status", type="REQUEST", methodArn="arn:aws:execute-api:…"),
    "an HTTP API's authorizer": event("http_api_v2_status", type="REQUEST", routeArn="arn:aws:execute-api:…"),
    "a null path": event("http_api_v2_status", rawPath=None),
    "a number for a path": event("rest_v1_status", path=5),
    "a null method": event("rest_v1_status", httpMethod=None),
    "a list of headers": event("http_api_v2_status", headers=["x"]),
    "null among many headers": event("alb_multi_value_status", multiValueHeaders={"accept": None}),
    "an object for a body": event("http_api_v2_predict", body={"instances": []}),
}


@pytest.mark.parametrize("value", OTHER_EVENTS.values(), ids=OTHER_EVENTS)
def test_other_events_are_refused(value):
    """What is no HTTP event is named as such, and an answer to it can be made; an authorizer never lets anyone in."""
    with pytest.raises(errors.MalformedRequestError, match="not an HTTP event"):
        request_from_event(value)
    assert response_to_event(Response(400, ""), value)["statusCode"] == 400


@pytest.mark.parametrize("headers", [{"content-encoding": "gzip"}, {}])
def test_gzip_is_known_by_its_magic_number(headers):
    """Some gateways decompress and leave the header, others compress and drop it."""
    assert request_from_event(with_body(gzip.compress(b"{}"), **headers)).body == b"{}"
    assert request_from_event(with_body(b"{}", **headers)).body == b"{}"


def test_deflate_is_decompressed():
    """Deflate means zlib."""
    assert request_from_event(with_body(zlib.compress(b"{}"), **{"content-encoding": "deflate"})).body == b"{}"


@pytest.mark.parametrize("header", ["GZIP", "x-gzip", "identity, gzip", " gzip ,"])
def test_codings_have_many_spellings(header):
    """Upper case, an old name and `identity` mean what RFC 9110 says."""
    assert request_from_event(with_body(gzip.compress(b"{}"), **{"content-encoding": header})).body == b"{}"


@pytest.mark.parametrize("header", ["br", "zstd", "compress", "gzip, gzip", "deflate, gzip"])
def test_other_codings_are_refused(header):
    """A body that nothing here can read is refused by its header, whatever its bytes are."""
    for body in (b"{}", gzip.compress(gzip.compress(b"{}"))):
        with pytest.raises(errors.UnsupportedEncodingError, match="expected gzip or deflate, once"):
            request_from_event(with_body(body, **{"content-encoding": header}))


def test_media_types_have_no_case():
    """Bytes under `Application/Octet-Stream` are bytes, even those of a gzip file."""
    body = gzip.compress(b"{}")
    request = request_from_event(with_body(body, **{"Content-Type": "Application/Octet-Stream"}))
    assert (bytes(request.body), request.headers["content-type"]) == (body, "application/octet-stream")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (gzip.compress(b"x" * 100, mtime=0)[:-9], "cut short"),
        (b"\x1f\x8bgarbage", "damaged"),
        (gzip.compress(b"{}", mtime=0) + b"garbage", "7 bytes follow"),
        (gzip.compress(b"{}", mtime=0) + bytes(3), "3 bytes follow"),
        (gzip.compress(b"{}", mtime=0) + b"\x1f\x8bgarbage", "damaged"),
        (gzip.compress(b"{}", mtime=0) + gzip.compress(b"x" * 100, mtime=0)[:-9], "cut short"),
        (gzip.compress(b"{}", mtime=0) + gzip.compress(b"{}", mtime=0)[:5], "cut short"),
    ],
)
def test_damaged_compression_is_the_clients_fault(body, message):
    """A broken gzip body is a 400 that says so."""
    with pytest.raises(errors.MalformedRequestError, match=message):
        request_from_event(with_body(body))


def test_bytes_after_deflate_are_the_clients_fault():
    """A zlib stream is one stream: what follows it is no second one."""
    body = zlib.compress(b"{}") + zlib.compress(b"{}")
    with pytest.raises(errors.MalformedRequestError, match="10 bytes follow"):
        request_from_event(with_body(body, **{"content-encoding": "deflate"}))


@pytest.mark.parametrize("count", [2, 3, 2000])
def test_gzip_of_several_members(count):
    """They are one body, as RFC 1952 and Python's own gzip have it, however many and however small."""
    members = [b"[" + b"1," * 5000, *[b" "] * (count - 2), b"2]"]
    body = gzip.compress(members[0]) + gzip.compress(b" ", mtime=0) * (count - 2) + gzip.compress(members[-1])
    assert gzip.decompress(body) == b"".join(members)
    assert request_from_event(with_body(body)).body == b"".join(members)


def test_the_limit_is_over_all_members():
    """Two members of four megabytes each are eight, over the limit of six."""
    body = gzip.compress(bytes(4 * 2**20)) * 2
    with pytest.raises(errors.PayloadTooLargeError, match="6291456 bytes"):
        request_from_event(with_body(body))


def test_a_gzip_bomb_is_refused_before_it_unfolds():
    """A gigabyte of zeros in a megabyte of gzip is stopped at the limit."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**20)
    bomb = b"".join(compressor.compress(block) for _ in range(1024)) + compressor.flush()
    with pytest.raises(errors.PayloadTooLargeError, match="6291456 bytes"):
        request_from_event(with_body(bomb))


@pytest.mark.parametrize("encoded", [True, False])
def test_a_body_over_the_limit_is_refused(encoded):
    """Seven megabytes are too many, in base64 or not."""
    body = "A" * (7 * 2**20)
    sent = base64.b64encode(body.encode()).decode() if encoded else body
    with pytest.raises(errors.PayloadTooLargeError, match="score the file in batch"):
        request_from_event(event("http_api_v2_predict", body=sent, isBase64Encoded=encoded))
    assert len(body) > MAX_BODY_BYTES


def test_bad_base64_is_refused():
    """A body marked as base64 that is none is the client's fault."""
    for body in ("!!!", "ü", "ü" * 20_000, "!" * 40_000):
        with pytest.raises(errors.MalformedRequestError, match="base64"):
            request_from_event(event("http_api_v2_predict", body=body, isBase64Encoded=True))


@pytest.mark.parametrize("value", [[0.5] * 9, ['"', "\\", "\n", "é", "\x00"], {"a b": "c"}, b"", b"1", b"1234"])
def test_what_a_body_takes_is_what_lambda_counts(value):
    """Lambda's limit is on the answer as JSON, in which quotes are escaped and bytes are base64."""
    body = value if isinstance(value, bytes) else json.dumps(value)
    sent = base64.b64encode(body).decode() if isinstance(body, bytes) else body
    assert sent_bytes(body) == len(json.dumps(sent)) - 2


def test_strings_that_do_not_fit_once_they_are_escaped_are_refused():
    """An answer of many short strings is below the limit by its length, and beyond it as Lambda counts."""
    body = json.dumps({"predictions": ["a"] * (MAX_RESPONSE_BYTES // 6)})
    assert len(body) < MAX_RESPONSE_BYTES < len(json.dumps(body))
    with pytest.raises(errors.PayloadTooLargeError, match="the predictions take"):
        finish(Response(200, body), {})
    numbers = json.dumps({"predictions": [1.5] * (MAX_RESPONSE_BYTES // 6)})
    assert finish(Response(200, numbers), {}).body == numbers


def test_response_forms():
    """Text goes as it is, bytes as base64; a load balancer gets its status line and its kind of headers."""
    response = Response(404, '{"error":"x"}')
    assert response_to_event(response, event("http_api_v2_predict")) == {
        "statusCode": 404,
        "headers": {"Content-Type": "application/json"},
        "body": '{"error":"x"}',
        "isBase64Encoded": False,
    }
    assert response_to_event(response, event("alb_predict"))["statusDescription"] == "404 Not Found"
    many = response_to_event(response, event("alb_multi_value_predict"))
    assert many["multiValueHeaders"] == {"Content-Type": ["application/json"]}
    assert "headers" not in many
    binary = response_to_event(Response(200, b"\x00\xff"), event("rest_v1_predict"))
    assert (base64.b64decode(binary["body"]), binary["isBase64Encoded"]) == (b"\x00\xff", True)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (errors.MalformedRequestError(""), 400),
        (errors.TensorError(""), 400),
        (errors.ModelNotFoundError(""), 404),
        (errors.MethodNotAllowedError(""), 405),
        (errors.PayloadTooLargeError(""), 413),
        (errors.UnsupportedEncodingError(""), 415),
        (errors.UnsupportedError(""), 501),
        (errors.StoreUnavailableError(""), 503),
        (errors.StoreAccessError(""), 500),
        (errors.DigestError(""), 500),
        (errors.LiteRtError(""), 500),
        (RuntimeError(""), 500),
    ],
)
def test_statuses(error, status):
    """4xx for the client's fault, 5xx only for ours."""
    assert status_of(error) == status
