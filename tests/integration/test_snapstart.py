"""SnapStart: credentials from the container endpoint, and what happens again after a restore."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import snapshot_restore_py

from litelambda_serving.errors import StoreAccessError
from litelambda_serving.s3_store import S3Store
from litelambda_serving.store import container_credentials, open_store
from litelambda_serving.store.snapstart import register


@contextmanager
def http_server(answer):
    """Serve GETs with `answer(path, headers) -> (status, body)`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self):
            status, body = answer(self.path, self.headers)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def snapshot_environment(monkeypatch):
    """The variables of a function under SnapStart: no keys, an endpoint that hands out another pair each time."""
    issued = []

    def issue(path, headers):
        if headers["Authorization"] != "token":
            return 403, b"{}"
        issued.append(f"KEY{len(issued) + 1}")
        fields = {"AccessKeyId": issued[-1], "SecretAccessKey": "s", "Token": "t", "Expiration": "2099-01-01T00:00:00Z"}
        return 200, json.dumps(fields).encode()

    seen = []

    def bucket(path, headers):
        seen.append(headers["Authorization"].partition("Credential=")[2].partition("/")[0])
        return 200, b"body"

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with http_server(issue) as credentials, http_server(bucket) as s3:
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", f"{credentials}/credentials")
        monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "token")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3)
        yield seen


def test_requests_are_signed_with_credentials_of_the_endpoint(snapshot_environment):
    """The endpoint is asked once for as long as its answer holds."""
    store = open_store("s3://bucket")
    for _ in range(2):
        assert bytes(store.fetch("key", 10)) == b"body"
    assert snapshot_environment == ["KEY1", "KEY1"]


def test_a_restore_asks_for_credentials_anew(snapshot_environment):
    """The hook that is registered makes the store forget what the snapshot held."""
    store = open_store("s3://bucket")
    store.fetch("key", 10)
    register(store)
    hooks = list(snapshot_restore_py.get_after_restore())
    function, arguments, options = hooks[-1]
    function(*arguments, **options)
    store.fetch("key", 10)
    assert snapshot_environment == ["KEY1", "KEY2"]


def test_a_refusal_is_an_access_error(snapshot_environment, monkeypatch):
    """A wrong token is an error by name, not a signature without keys."""
    monkeypatch.setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "wrong")
    with pytest.raises(StoreAccessError, match="gave no credentials"):
        container_credentials.credentials()


def test_keys_in_the_environment_win(snapshot_environment, monkeypatch):
    """Where there are keys, as in any function without SnapStart, the endpoint is not asked."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "OWN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    assert isinstance(open_store("s3://bucket"), S3Store)
    open_store("s3://bucket").fetch("key", 10)
    assert snapshot_environment == ["OWN"]
