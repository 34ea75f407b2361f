"""The client: what it sends, to whom it signs, and what it makes of refusals."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda.client import _AWS_HOST, _SERVICES, Client, ServiceError, _signed
from litelambda.common.errors import UsageError
from support import deployed
from support.mocked_aws import mock_aws

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PREDICTIONS = {"predictions": [[0.5], [0.25]]}


class Service(HTTPServer):
    """Answers every POST alike, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.status, self.answer = 200, json.dumps(PREDICTIONS)
        self.path, self.headers, self.body = "", {"": ""}, b""


class _Handler(BaseHTTPRequestHandler):
    server: Service

    def do_POST(self) -> None:
        self.server.path = self.path
        self.server.headers = {name.lower(): value for name, value in self.headers.items()}
        self.server.body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(self.server.answer.encode())

    def log_message(self, *_: Any) -> None:
        """Keep quiet."""


@pytest.fixture(scope="module")
def running() -> Iterator[Service]:
    """A service in this process."""
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever, args=(0.02,))
        thread.start()
        yield service
        service.shutdown()
        thread.join()


@pytest.fixture
def service(running: Service) -> Service:
    """It, as it was at its start."""
    running.status, running.answer, running.headers = 200, json.dumps(PREDICTIONS), {}
    return running


@pytest.fixture
def credentials(service: Service, monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Those of a user, and the service in an emulator's place."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "session")
    monkeypatch.setenv("AWS_DEFAULT_REGION", deployed.REGION)
    monkeypatch.setenv("AWS_ENDPOINT_URL", service.url)
    return monkeypatch


@pytest.mark.parametrize(
    ("end", "model", "path"),
    [
        ("", "fruit", "/v1/models/fruit:predict"),
        ("", "fruit:3", "/v1/models/fruit/versions/3:predict"),
        ("/", "fruit@stable", "/v1/models/fruit/labels/stable:predict"),
        ("/v1/models/fruit", "", "/v1/models/fruit:predict"),
        ("/ml/v1/models/fruit/versions/3:predict", "", "/ml/v1/models/fruit/versions/3:predict"),
    ],
)
def test_a_service_is_asked(service: Service, end: str, model: str, path: str) -> None:
    """The address may be a service's or a model's; rows go as the protocol has them, and nothing is signed."""
    rows = [np.array([1.0, 2.0], np.float32), [np.float32(3.0), 4], {"picture": b"\xff\xd8"}]
    assert Client(service.url + end, headers={"X-Mine": "1"}).predict(rows, model=model, top_k=2) == [[0.5], [0.25]]
    assert service.path == path
    picture = {"picture": {"b64": "/9g="}}
    assert json.loads(service.body) == {"instances": [[1.0, 2.0], [3.0, 4], picture], "top_k": 2}
    assert service.headers["x-mine"] == "1"
    assert "authorization" not in service.headers


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("https://a1b2.execute-api.eu-central-1.amazonaws.com", "eu-central-1/execute-api"),
        ("https://a1b2.execute-api.cn-north-1.amazonaws.com.cn/live", "cn-north-1/execute-api"),
    ],
)
def test_requests_to_aws_are_signed(service: Service, credentials: pytest.MonkeyPatch, url: str, scope: str) -> None:
    """For the region and the service that the host names, with the session's token; a caller's own header stays."""
    Client(url).predict([[1]], model="fruit")
    assert service.path == f"/_aws/execute-api/a1b2{'/live' if 'live' in url else ''}/v1/models/fruit:predict"
    assert f"/{scope}/aws4_request" in service.headers["authorization"]
    assert service.headers["x-amz-security-token"] == "session"
    Client(url, headers={"authorization": "Bearer mine"}).predict([[1]], model="fruit")
    assert service.headers["authorization"] == "Bearer mine"


def test_function_urls_are_signed_for_lambda(credentials: pytest.MonkeyPatch) -> None:
    """Their hosts name another service."""
    url = "https://a1b2.lambda-url.eu-west-1.on.aws/v1/models/fruit:predict"
    found = _AWS_HOST.match(url)
    assert found is not None
    headers = _signed(url, b"{}", "application/json", _SERVICES[found[2]], found[3])
    assert "/eu-west-1/lambda/aws4_request" in headers["authorization"]


@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (404, '{"error": "no model"}', "answered 404: no model"),
        (403, '{"message": "Forbidden"}', "answered 403: Forbidden"),
        (502, "<html>", "answered 502: <html>"),
        (200, "[1]", "answered 200: [1]"),
    ],
)
def test_refusals_are_errors(service: Service, status: int, answer: str, said: str) -> None:
    """What the service says is in the message, its status beside it."""
    service.status, service.answer = status, answer
    with pytest.raises(ServiceError) as raised:
        Client(service.url).predict([[1]], model="fruit")
    assert said in str(raised.value)
    assert raised.value.status == status
    assert ("the request was not signed" in str(raised.value)) == (status == 403)


def test_wrong_use_is_refused(service: Service) -> None:
    """Before anything is sent: no service, two of them, no model, and values that JSON does not have."""
    for arguments in ({}, {"url": service.url, "stack": "one"}, {"url": "example.com"}):
        with pytest.raises(UsageError):
            Client(**arguments)
    with pytest.raises(UsageError, match="name the model"):
        Client(service.url).predict([[1]])
    with pytest.raises(UsageError, match="a row has a set"):
        Client(service.url).predict([{1}], model="fruit")
    with pytest.raises(ServiceError, match="cannot be asked"):
        Client("http://127.0.0.1:9").predict([[1]], model="fruit")


def test_the_command_asks_a_service(
    service: Service, credentials: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`predict --url` sends a row or a picture; a service that is named twice, or headers for a store, are refused."""
    picture = tmp_path / "one.jpg"
    picture.write_bytes(b"\xff\xd8\xff\xe0")
    header = ["--header", "Authorization: Bearer token"]
    assert main(["predict", "fruit@stable", "--url", service.url, "--input", str(picture), *header]) == 0
    assert json.loads(capsys.readouterr().out) == PREDICTIONS
    assert json.loads(service.body) == {"instances": [{"b64": "/9j/4A=="}]}
    assert service.path == "/v1/models/fruit/labels/stable:predict"
    assert service.headers["authorization"] == "Bearer token"
    for wrong in (["--url", service.url, "--stack", "one"], header):
        assert main(["predict", "fruit", "--input", str(picture), *wrong]) == 2


def test_a_stack_is_asked_by_name(service: Service, credentials: pytest.MonkeyPatch) -> None:
    """Its address comes from its outputs."""
    with mock_aws():
        credentials.delenv("AWS_ENDPOINT_URL")
        deployed.deploy()
        client = Client(stack="litelambda")
    credentials.setenv("AWS_ENDPOINT_URL", service.url)
    assert client.predict([[1], [2]], model="fruit") == [[0.5], [0.25]]
    assert service.path == "/_aws/execute-api/a1b2c3d4/v1/models/fruit:predict"
