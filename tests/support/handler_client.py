"""The deployed handler as a client sees it: INIT, then events in and decoded answers out."""

from __future__ import annotations

import base64
import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

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


def send(
    handler: Any, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None, context: Any = None
) -> Answer:
    """Send an HTTP API event: bytes go as base64, text as it is, anything else as JSON."""
    event = json.loads((EVENTS / "http_api_v2_predict.json").read_text())
    event["rawPath"] = path
    event["requestContext"]["http"]["method"] = method
    event["headers"] = {name.lower(): value for name, value in (headers or {}).items()}
    event["isBase64Encoded"] = isinstance(body, bytes)
    if isinstance(body, bytes):
        event["body"] = base64.b64encode(body).decode()
    else:
        event["body"] = body if isinstance(body, str) or body is None else json.dumps(body)
    return Answer(handler(event, context or Context()))
