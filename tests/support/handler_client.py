"""The deployed handler as a client sees it: INIT, then events in and decoded answers out."""

from __future__ import annotations

import asyncio
import base64
import importlib
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from litelambda_serving.asgi import Application

EVENTS = Path(__file__).parents[1] / "events"


class Context:
    """Lambda's, as far as the handler reads it."""

    aws_request_id = "request-1"

    def __init__(self, milliseconds: int = 10_000) -> None:
        self._milliseconds = milliseconds

    def get_remaining_time_in_millis(self) -> int:
        """Time that is left of the invocation."""
        return self._milliseconds


def load_module(store: Path, model: str = "", **environment: str) -> Any:
    """INIT, as Lambda does it: the environment first, then the import."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MODEL_STORE", store.as_uri())
        patch.setenv("MODEL_NAME", model)
        for name, value in environment.items():
            patch.setenv(name, value)
        sys.modules.pop("predict", None)
        return importlib.import_module("predict")


class Answer:
    """A response, decoded of base64.

    Attributes:
        status: HTTP status.
        headers: by lower-cased name.
        body: bytes.
    """

    def __init__(self, answer: dict[str, Any]) -> None:
        self.status: int = answer["statusCode"]
        self.headers = {name.lower(): value for name, value in answer["headers"].items()}
        body = answer["body"]
        self.body: bytes = base64.b64decode(body) if answer["isBase64Encoded"] else body.encode()

    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.body)


_loops: list[tuple[asyncio.Runner, dict[int, tuple[Any, Application]]]] = []


@contextmanager
def through_asgi() -> Iterator[None]:
    """Until the end of the block, `send` asks the same module's ASGI application instead of its handler."""
    with asyncio.Runner() as loop:
        _loops.append((loop, {}))
        yield
        _loops.pop()


async def _ask(application: Application, method: str, path: str, headers: dict[str, str], body: bytes) -> list[Any]:
    """The messages of an application's answer to a body that comes in two pieces."""
    sent: list[Any] = []
    half = len(body) // 2
    pieces = iter([(body[:half], True), (body[half:], False)])

    async def receive() -> Any:
        piece, more = next(pieces)
        return {"type": "http.request", "body": piece, "more_body": more}

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("utf-8", "surrogatepass")) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "headers": raw}
    await application(scope, receive, send)
    return sent


def _through_application(handler: Any, method: str, path: str, body: Any, headers: dict[str, str]) -> Answer:
    ((loop, applications),) = _loops
    module = handler.__globals__
    _, application = applications.setdefault(id(module), (module, Application(SimpleNamespace(**module))))
    data = body if isinstance(body, bytes) else (body or "").encode("utf-8", "surrogatepass")
    start, *rest = loop.run(_ask(application, method, path, headers, data))
    names = {name.decode("latin-1"): value.decode("latin-1") for name, value in start["headers"]}
    content = base64.b64encode(b"".join(each.get("body", b"") for each in rest)).decode()
    return Answer({"statusCode": start["status"], "headers": names, "body": content, "isBase64Encoded": True})


def send(
    handler: Any, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, context: Any = None
) -> Answer:
    """Send an HTTP API event: bytes go as base64, text as it is, anything else as JSON."""
    if not isinstance(body, str | bytes | None):
        body = json.dumps(body)
    if _loops and context is None:
        return _through_application(handler, method, path, body, headers or {})
    event = json.loads((EVENTS / "http_api_v2_predict.json").read_text())
    event["rawPath"] = path
    event["requestContext"]["http"]["method"] = method
    event["headers"] = {name.lower(): value for name, value in (headers or {}).items()}
    event["isBase64Encoded"] = isinstance(body, bytes)
    if isinstance(body, bytes):
        event["body"] = base64.b64encode(body).decode()
    else:
        event["body"] = body
    return Answer(handler(event, context or Context()))


def capture(store: Path, model: str, folder: Path, rows: list[Any]) -> None:
    """Have the function answer rows one by one, and keep what it was asked in a folder."""
    module = load_module(store, model, CAPTURE_STORE=folder.as_uri(), CAPTURE_SECONDS="0")
    with redirect_stdout(StringIO()):
        for row in rows:
            assert send(module.handler, "POST", f"/v1/models/{model}:predict", {"instances": [row]}).status == 200
            module.after_response()
