"""One artifact and one code behind every door: the same request has the same status and body, byte for byte.

`tests/e2e/test_image.py` asks the same of images.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda_serving.asgi import Application
from support.doors import REQUESTS, publish_models, reference_rows, through_event, through_http
from support.handler_client import load_module
from support.server import running

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The composition root, with its models."""
    root = tmp_path_factory.mktemp("store")
    publish_models(root)
    return load_module(root, "tiny", LOG_LEVEL="ERROR")


@pytest.fixture(scope="module")
def port(module: Any) -> Iterator[int]:
    """The same module behind a server."""
    with running(Application(module)) as port:
        yield port


@pytest.mark.parametrize("name", REQUESTS)
def test_every_door_gives_the_same_answer(module: Any, port: int, name: str) -> None:
    """An HTTP API, a REST API, a Function URL, a load balancer and a server answer alike."""
    asked = REQUESTS[name]
    first = through_event(module.handler, "http_api_v2", asked)
    for kind in ("rest_v1", "function_url", "alb"):
        assert through_event(module.handler, kind, asked) == first, kind
    assert through_http(port, asked) == first


def test_the_answer_is_the_reference_interpreters(port: int) -> None:
    """What all doors say is what LiteRT's own Interpreter says of the row, as JSON and as bytes."""
    _, body = through_http(port, REQUESTS["predict"])
    assert json.loads(body)["predictions"] == [reference_rows()] * 2
    _, binary = through_http(port, REQUESTS["V2 binary"])
    assert np.frombuffer(binary[-12:], np.float32).tolist() == reference_rows()


def test_the_requests_are_of_every_outcome(port: int) -> None:
    """Right requests and wrong ones are among those that are compared."""
    assert {through_http(port, asked)[0] for asked in REQUESTS.values()} == {200, 400, 404, 405}
