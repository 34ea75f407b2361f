"""Images that docker builds, on the stand-in for Lambda's: as Cloud Run runs a container, and as Lambda an image."""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from litelambda.commands.image import build_image, make_image
from support.doors import REQUESTS, event_of, publish_models, reference_rows, through_event, through_http
from support.handler_client import Answer, load_module
from support.rie import ARCH, EMULATORS, INVOKE, free_port
from support.sam import needs_engine, needs_sam

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, needs_sam, needs_engine]

BASE = f"public.ecr.aws/lambda/python:3.13-{ARCH}"


def docker(*arguments: str) -> str:
    """Run a docker command that must succeed; what it printed."""
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that any user may read."""
    root = tmp_path_factory.mktemp("models")
    publish_models(root)
    for path in (root, *root.parents[:2], *root.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


def start(target: Any, folder: Path, *options: str, command: tuple[str, ...] = ()) -> str:
    """Build an image and run it without a right to write anything; the container's id."""
    tag = f"litelambda-test-{target}"
    build_image(make_image(target, ARCH, folder, base=BASE), tag)
    return docker("run", "--detach", "--read-only", "--cap-drop", "ALL", *options, tag, *command)


@pytest.fixture(scope="module")
def container(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, int]]:
    """The container's id and port."""
    port = free_port()
    running = start(
        *("container", tmp_path_factory.mktemp("container"), "--publish", f"127.0.0.1:{port}:5000"),
        *("--env", "PORT=5000", "--env", "MODEL_STORE=file:///models", "--env", "MODEL_NAME=tiny"),
        *("--volume", f"{models}:/models:ro"),
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/v2/health/ready", running)
        yield running, port
    finally:
        docker("rm", "--force", running)


def wait_for(url: str, running: str) -> None:
    """Wait until something answers."""
    for _ in range(200):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(docker("logs", running))


@pytest.fixture(scope="module")
def handler(models: Path) -> Any:
    """The function in this process."""
    return load_module(models, "tiny", LOG_LEVEL="ERROR").handler


def test_the_container_answers_as_the_function(container: tuple[str, int], handler: Any) -> None:
    """Every request that other doors are asked has the same status and body here, and the reference's row."""
    answers = {name: through_http(container[1], asked) for name, asked in REQUESTS.items()}
    assert answers == {name: through_event(handler, "http_api_v2", asked) for name, asked in REQUESTS.items()}
    assert json.loads(answers["predict"][1])["predictions"] == [reference_rows()] * 2


def test_the_container_ends_when_it_is_told_to(container: tuple[str, int]) -> None:
    """It runs as no one in particular, says what is in it, and SIGTERM ends it at once and in order."""
    running, _ = container
    found = json.loads(docker("inspect", running))[0]
    assert found["Config"]["User"] == "65532:65532"
    assert found["Config"]["Labels"]["litelambda.sbom"] == "/app/bom.cdx.json"
    bom = docker("exec", running, "cat", "/app/bom.cdx.json")
    assert {"obstore", "uvicorn"} <= {each["name"] for each in json.loads(bom)["components"]}
    docker("stop", "--time", "10", running)
    state = json.loads(docker("inspect", running))[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0), docker("logs", running)


@pytest.mark.skipif(not EMULATORS, reason="no Runtime Interface Emulator here: say `make setup-sam`")
def test_the_lambda_image_answers_as_the_function(models: Path, handler: Any, tmp_path: Path) -> None:
    """Behind Lambda's Runtime Interface Emulator the image's own entry point answers events as the zip's handler."""
    port = free_port()
    emulator = os.path.realpath(EMULATORS[0])
    running = start(
        *("lambda-image", tmp_path, "--publish", f"127.0.0.1:{port}:8080", "--volume", f"{emulator}:/rie:ro"),
        *("--volume", f"{models}:/models:ro", "--tmpfs", "/tmp", "--entrypoint", "/rie"),
        *("--env", "MODEL_STORE=file:///models", "--env", "MODEL_NAME=tiny", "--env", "_HANDLER=predict.handler"),
        command=("/var/task/lean-bootstrap", "python3.13"),
    )
    try:
        entry = json.loads(docker("inspect", "litelambda-test-lambda-image"))[0]["Config"]
        assert (entry["Entrypoint"], entry["Cmd"]) == (
            ["/var/task/lean-bootstrap", "python3.13"],
            ["predict.handler"],
        )
        for asked in (REQUESTS["predict"], REQUESTS["V2 binary"], REQUESTS["wrong shape"]):
            event = event_of("http_api_v2", asked)
            answer = Answer(invoke(port, event, running))
            assert (answer.status, answer.body) == through_event(handler, "http_api_v2", asked)
    finally:
        docker("rm", "--force", running)


def invoke(port: int, event: dict[str, Any], running: str) -> dict[str, Any]:
    """One synchronous invocation, once the emulator listens."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}{INVOKE}", json.dumps(event).encode(), 60) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            time.sleep(0.1)
    raise AssertionError(docker("logs", running))
