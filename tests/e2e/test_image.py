"""Images that docker builds, on the stand-in for Lambda's: as Cloud Run runs a container, and as Lambda an image."""

from __future__ import annotations

import json
import os
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from litelambda.commands.image import BASES, build_image, make_image
from support.containers import container, docker
from support.doors import REQUESTS, event_of, publish_models, reference_rows, through_event, through_http
from support.golden_store import golden, publish
from support.handler_client import Answer, load_module
from support.pages import IMAGES, examples_for, pages_for
from support.reader import Reader
from support.rie import ARCH, EMULATORS, INVOKE
from support.sam import needs_engine, needs_sam
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, needs_sam, needs_engine]

BASE = f"public.ecr.aws/lambda/python:3.13-{ARCH}"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store."""
    root = tmp_path_factory.mktemp("models")
    publish_models(root)
    return root


def build(target: Any, folder: Path) -> str:
    """Build an image; its name."""
    name = f"litelambda-test-{target}"
    build_image(make_image(target, ARCH, folder, base=BASE), name)
    return name


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[tuple[str, int]]:
    """The container's id and port."""
    image = build("container", tmp_path_factory.mktemp("container"))
    with container(image, models, ready="/v2/health/ready", MODEL_NAME="tiny") as running:
        yield running


@pytest.fixture(scope="module")
def handler(models: Path) -> Any:
    """The function in this process."""
    return load_module(models, "tiny", LOG_LEVEL="ERROR").handler


def test_the_container_answers_as_the_function(served: tuple[str, int], handler: Any) -> None:
    """Every request that other doors are asked has the same status and body here, and the reference's row."""
    answers = {name: through_http(served[1], asked) for name, asked in REQUESTS.items()}
    assert answers == {name: through_event(handler, "http_api_v2", asked) for name, asked in REQUESTS.items()}
    assert json.loads(answers["predict"][1])["predictions"] == [reference_rows()] * 2


def test_the_container_ends_when_it_is_told_to(served: tuple[str, int]) -> None:
    """It runs as no one in particular, says what is in it, and SIGTERM ends it at once and in order."""
    running, _ = served
    found = json.loads(docker("inspect", running))[0]
    assert found["Config"]["User"] == "65532:65532"
    assert found["Config"]["Labels"]["litelambda.sbom"] == "/app/bom.cdx.json"
    bom = docker("exec", running, "cat", "/app/bom.cdx.json")
    assert {"obstore", "uvicorn"} <= {each["name"] for each in json.loads(bom)["components"]}
    docker("stop", "--time", "10", running)
    state = json.loads(docker("inspect", running))[0]["State"]
    assert (state["Status"], state["ExitCode"]) == ("exited", 0), docker("logs", running)


@pytest.fixture
def standard_base() -> Iterator[None]:
    """The stand-in, under the name of the image that containers are built on, where the engine does not have that."""
    name = BASES["container"]
    has_it = docker("images", "--quiet", name)
    if not has_it:
        docker("tag", BASE, name)
    yield
    if not has_it:
        docker("rmi", name)


@pytest.mark.usefixtures("standard_base")
def test_the_pages_do_what_they_say(tmp_path: Path) -> None:
    """A container is made, run and asked; the model goes into one; a registry's name is given to one."""
    store = tmp_path / "models"
    publish(store, "fruit", data=golden("tiny_int8"))
    for path in (store, *store.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)  # of any user
    images = {"REGION-docker.pkg.dev/PROJECT/REPOSITORY": "made.example", "ACCOUNT.dkr.ecr.REGION": "also-made"}
    with Reader(tmp_path, in_process=True) as reader:
        reader.replaced = {**images, "x86_64": ARCH}
        for page in pages_for(IMAGES):
            examples = examples_for(page, IMAGES)
            reader.follow(examples)
            reader.done += [each.command for each in examples if "package" in each.command]
            reader.stop()
    made = docker("image", "inspect", "also-made.amazonaws.com/fruit:1", "--format", "{{json .Config.Env}}")
    assert "MODEL_NAME=fruit" in json.loads(made)
    docker("rmi", "fruit", "made.example/fruit:1", "also-made.amazonaws.com/fruit:1")


@pytest.mark.skipif(not EMULATORS, reason="no Runtime Interface Emulator here: say `make setup-sam`")
def test_the_lambda_image_answers_as_the_function(models: Path, handler: Any, tmp_path: Path) -> None:
    """Behind Lambda's Runtime Interface Emulator the image's own entry point answers events as the zip's handler."""
    image = build("lambda-image", tmp_path)
    entry = json.loads(docker("inspect", image))[0]["Config"]
    start = ["/var/task/lean-bootstrap", "python3.13"]
    assert (entry["Entrypoint"], entry["Cmd"]) == (start, ["predict.handler"])
    options = (f"--volume={os.path.realpath(EMULATORS[0])}:/rie:ro", "--tmpfs=/tmp", "--entrypoint=/rie")
    environment = {"MODEL_NAME": "tiny", "_HANDLER": "predict.handler"}
    with container(image, models, *options, command=tuple(start), **environment) as (running, port):
        for asked in (REQUESTS["predict"], REQUESTS["V2 binary"], REQUESTS["wrong shape"]):
            answer = Answer(invoke(port, event_of("http_api_v2", asked), running))
            assert (answer.status, answer.body) == through_event(handler, "http_api_v2", asked)


def invoke(port: int, event: dict[str, Any], running: str) -> dict[str, Any]:
    """One synchronous invocation, once the emulator listens."""

    def answer() -> bytes | None:
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}{INVOKE}", body, 60) as found:
            return bytes(found.read())
        return None

    body = json.dumps(event).encode()
    found: dict[str, Any] = json.loads(wait_until(answer, explain=lambda: docker("logs", running)))
    return found
