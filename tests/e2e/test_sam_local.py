"""The built function in Lambda's container, behind SAM's local API: the runtime client and real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import subprocess
from typing import TYPE_CHECKING

import numpy as np
import pytest

from litelambda.common.paths import PROJECT
from support.golden_store import golden, publish
from support.ports import free_port, is_listening
from support.sam import ENVIRONMENT, HERE, SAM, build, needs_engine, needs_sam, sam
from support.scoring_files import expected as reference
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [needs_sam, needs_engine, pytest.mark.slow]

EVENTS = PROJECT / "tests" / "events"
ROW = (0.1, 0.2, 0.3, 0.4)
PARAMETERS = f"Architecture={HERE} ModelStore=file:///var/task/models ModelName=tiny"
START_TIMEOUT_S = 120


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built template; the function has a tiny model bundled."""
    built = build(HERE, tmp_path_factory.mktemp("sam") / "build")
    publish(built.parent / "PredictFunction" / "models", "tiny", data=golden("tiny_int8"))
    return built


@pytest.fixture(scope="module")
def expected() -> list[float]:
    """What the reference Interpreter says of `ROW`."""
    return reference(np.array([ROW], np.float32))[0].tolist()


@pytest.fixture(scope="module", params=["lean", "stock"])
def api(template: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """`sam local start-api`, warm, on either runtime client; yields its port."""
    port = free_port()
    log = tmp_path_factory.mktemp("api") / "log"
    command = [SAM, "local", "start-api", "--template", template, "--port", str(port), "--host", "127.0.0.1"]
    command += ["--skip-pull-image", "--warm-containers", "EAGER", "--disable-authorizer"]  # as samconfig.toml says
    command += ["--parameter-overrides", f"{PARAMETERS} Bootstrap={request.param}"]
    with log.open("w") as sink, subprocess.Popen(command, env=ENVIRONMENT, stdout=sink, stderr=sink) as process:
        try:
            wait_until(lambda: is_listening(port) or process.poll() is not None, START_TIMEOUT_S, log.read_text)
            assert process.poll() is None, log.read_text()
            yield port
        finally:
            process.terminate()


def _request(port: int, method: str, path: str, body: str | bytes | None = None, kind: str = "") -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    with contextlib.closing(connection):
        connection.request(method, path, body, {"Content-Type": kind} if kind else {})
        response = connection.getresponse()
        return response.status, response.read().decode()


# Base64 comes in here alone: SAM's local HTTP API does not hand on a body that is not text.
@pytest.mark.parametrize(
    "event",
    ["http_api_v2_predict", "http_api_v2_predict_base64", "rest_v1_predict", "function_url_predict", "alb_predict"],
)
def test_invoke(template: Path, expected: list[float], event: str) -> None:
    """`sam local invoke` answers the same prediction to the events of every source."""
    done = sam(
        *("local", "invoke", "PredictFunction", "--template", template, "--event", EVENTS / f"{event}.json"),
        *("--skip-pull-image", "--parameter-overrides", PARAMETERS),
    )
    answer = json.loads(done.stdout.splitlines()[-1])
    assert answer["statusCode"] == 200
    assert json.loads(answer["body"]) == {"predictions": [expected]}


def test_predict(api: int, expected: list[float]) -> None:
    """A prediction over HTTP."""
    body = json.dumps({"instances": [ROW]})
    status, answer = _request(api, "POST", "/v1/models/tiny:predict", body, "application/json")
    assert (status, json.loads(answer)) == (200, {"predictions": [expected]})


# Not "/": SAM ignores conditions, and takes the one of the REST API, whose function it cannot resolve.
@pytest.mark.parametrize("path", ["/healthz", "/openapi.json", "/v1/models/tiny", "/v1/models/tiny/metadata", "/v2"])
def test_get(api: int, path: str) -> None:
    """Every route of the template reaches the function."""
    status, answer = _request(api, "GET", path)
    assert status == 200
    json.loads(answer)


def test_unknown_model(api: int) -> None:
    """An unknown model is the protocol's 404."""
    status, answer = _request(api, "POST", "/v1/models/nothing:predict", '{"instances": [1]}', "application/json")
    assert status == 404
    assert "error" in json.loads(answer)


@pytest.mark.parametrize("bootstrap", ["lean", "stock"])
def test_init_failure_is_clear(template: Path, bootstrap: str) -> None:
    """A model that is not in the store fails INIT: the reason is in the log, not in the answer."""
    done = sam(
        *("local", "invoke", "PredictFunction", "--template", template, "--event", EVENTS / "http_api_v2_health.json"),
        *("--skip-pull-image", "--parameter-overrides"),
        f"{PARAMETERS} Bootstrap={bootstrap}".replace("ModelName=tiny", "ModelName=absent"),
    )
    assert "ModelNotFoundError" in done.stdout + done.stderr
