"""Requests that every door of the service must answer alike, and who asks through which."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from support.golden_store import golden, publish
from support.handler_client import EVENTS, Answer, Context
from support.scoring_files import expected

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROW = [0.1, 0.2, 0.3, 0.4]
_JSON = {"content-type": "application/json"}
_V2_INPUT = {"name": "x", "shape": [1, 4], "datatype": "FP32"}
_V2_HEAD = json.dumps(
    {
        "inputs": [{**_V2_INPUT, "parameters": {"binary_data_size": 16}}],
        "outputs": [{"name": "probabilities", "parameters": {"binary_data": True}}],
    }
).encode()


@dataclass(frozen=True)
class Asked:
    """A request."""

    method: str
    path: str
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=lambda: dict(_JSON))


REQUESTS = {
    "predict": Asked("POST", "/v1/models/tiny:predict", json.dumps({"instances": [ROW, ROW]}).encode()),
    "columnar": Asked("POST", "/v1/models/tiny:predict", json.dumps({"inputs": [ROW]}).encode()),
    "compressed": Asked(
        *("POST", "/v1/models/tiny:predict", gzip.compress(json.dumps({"instances": [ROW]}).encode(), mtime=0)),
        {**_JSON, "content-encoding": "gzip"},
    ),
    "another model": Asked("POST", "/v1/models/half_plus_two:predict", b'{"instances": [1.0, 2.0, 5.0]}'),
    "V2": Asked("POST", "/v2/models/tiny/infer", json.dumps({"inputs": [{**_V2_INPUT, "data": ROW}]}).encode()),
    "V2 binary": Asked(
        *("POST", "/v2/models/tiny/infer", _V2_HEAD + np.array(ROW, np.float32).tobytes()),
        {"content-type": "application/octet-stream", "inference-header-content-length": str(len(_V2_HEAD))},
    ),
    "explain": Asked("POST", "/v1/models/tiny:explain", json.dumps({"instances": [ROW]}).encode()),
    "status": Asked("GET", "/v1/models/tiny"),
    "metadata": Asked("GET", "/v2/models/tiny"),
    "ready": Asked("GET", "/v2/health/ready"),
    "wrong shape": Asked("POST", "/v1/models/tiny:predict", b'{"instances": [[1, 2]]}'),
    "no JSON": Asked("POST", "/v1/models/tiny:predict", b'{"instances": '),
    "no such model": Asked("POST", "/v1/models/none:predict", b'{"instances": [1]}'),
    "wrong method": Asked("GET", "/v1/models/tiny:predict"),
}


def publish_models(root: Path) -> None:
    """Publish what `REQUESTS` ask for into a folder."""
    publish(root, "tiny", data=golden("tiny_int8"), labels=["cat", "dog", "fox"])
    publish(root, "half_plus_two")


def reference_rows() -> list[float]:
    """What the reference Interpreter says of `ROW`."""
    row: list[float] = expected(np.array([ROW], np.float32))[0].tolist()
    return row


def event_of(kind: str, asked: Asked) -> dict[str, Any]:
    """A request as the event of a trigger: `http_api_v2`, `rest_v1`, `function_url` or `alb`."""
    event: dict[str, Any] = json.loads((EVENTS / f"{kind}_predict.json").read_text())
    is_text = asked.headers == _JSON
    event["body"] = asked.body.decode() if is_text else base64.b64encode(asked.body).decode()
    event["isBase64Encoded"] = not is_text
    event["headers"] = asked.headers
    if "version" in event:
        event["rawPath"] = event["requestContext"]["http"]["path"] = asked.path
        event["requestContext"]["http"]["method"] = asked.method
    else:
        event["path"], event["httpMethod"] = asked.path, asked.method
        event.pop("multiValueHeaders", None)
    return event


def through_event(handler: Callable[..., dict[str, Any]], kind: str, asked: Asked) -> tuple[int, bytes]:
    """Status and body of a handler's answer to an event."""
    answer = Answer(handler(event_of(kind, asked), Context()))
    return answer.status, answer.body


def through_http(port: int, asked: Asked) -> tuple[int, bytes]:
    """Status and body of a server's answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(asked.method, asked.path, body=asked.body or None, headers=asked.headers)
    response = connection.getresponse()
    answer = response.status, response.read()
    connection.close()
    return answer
