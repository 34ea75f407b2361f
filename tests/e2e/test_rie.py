"""The packaged function in Lambda's Runtime Interface Emulator, under both clients, with its store in trouble too."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda.bench.emulator.environment import library_path
from litelambda.bench.emulator.object_store import LoopbackS3
from litelambda.bench.peers import make_peer_environment
from litelambda.commands.package import PYTHON_VERSION, WRAPPER, package
from litelambda.common.errors import BenchError
from litelambda.common.paths import PROJECT
from support.faulty_s3 import CUT_SHORT, faulty_s3
from support.golden_store import golden, publish
from support.ports import free_port
from support.rie import ARCH, EMULATORS, Emulator
from support.scoring_files import expected as reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    Objects = dict[str, bytes]

EVENTS = PROJECT / "tests" / "events"
ROW = (0.1, 0.2, 0.3, 0.4)
SECRET = "wJalrXUtnFEMI-not-a-secret"
TIMEOUT_S = 8

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EMULATORS, reason="no Runtime Interface Emulator here: say `make setup-sam`"),
]


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deployment package, unpacked, in a folder that the function cannot count on writing to."""
    return package(ARCH, tmp_path_factory.mktemp("package")).directory


@pytest.fixture(scope="module")
def interpreter() -> tuple[str, str]:
    """The package's Python with the stock client; the running one where the package's is not to be had."""
    try:
        python = make_peer_environment("runtime-client", PYTHON_VERSION)
    except BenchError:
        return sys.executable, library_path()
    return str(python), ""


@pytest.fixture(scope="module")
def objects(tmp_path_factory: pytest.TempPathFactory) -> Objects:
    """The store's objects by key."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "tiny", data=golden("tiny_int8"))
    return read_store(root)


def read_store(root: Path) -> Objects:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*.*")}


@pytest.fixture(scope="module")
def expected() -> list[float]:
    """What the reference Interpreter says of `ROW`."""
    return reference(np.array([ROW], np.float32))[0].tolist()


@pytest.fixture(params=["stock", "lean"])
def start(request: pytest.FixtureRequest, function: Path, interpreter: tuple[str, str], tmp_path: Path) -> Any:
    """Start the packaged function under each runtime client."""
    python, packages = interpreter

    @contextmanager
    def starter(endpoint: str, **settings: str) -> Iterator[Emulator]:
        command = [python, "-m", "awslambdaric", "predict.handler"]
        if request.param == "lean":
            command.insert(0, str(function / WRAPPER))
        environ = {
            "PATH": "/usr/bin:/bin",
            "PYTHONPATH": packages,
            "PYTHONDONTWRITEBYTECODE": "1",
            "_HANDLER": "predict.handler",
            "AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUT_S),
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "512",
            "AWS_REGION": "eu-west-1",
            "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL_S3": endpoint,
            "MODEL_STORE": "s3://bucket",
            "MODEL_NAME": "tiny",
            **settings,
        }
        emulator = Emulator(command, function, environ, tmp_path / "log")
        try:
            yield emulator
        finally:
            emulator.close()

    return starter


def predict_event() -> dict[str, Any]:
    event: dict[str, Any] = json.loads((EVENTS / "http_api_v2_predict.json").read_text())
    event["rawPath"] = event["requestContext"]["http"]["path"] = "/v1/models/tiny:predict"
    event["body"] = json.dumps({"instances": [ROW]})
    return event


def predictions(answer: Any) -> list[float]:
    """The only row of a successful answer."""
    assert answer["statusCode"] == 200, answer
    (row,) = json.loads(answer["body"])["predictions"]
    return list(row)


def test_a_prediction(start: Any, objects: Objects, expected: list[float]) -> None:
    """The packaged function predicts out of S3, warm as cold, and the emulator has timed its INIT."""
    with faulty_s3(objects, lambda _key: None) as (endpoint, asked), start(endpoint) as emulator:
        rows = [predictions(emulator.invoke(predict_event())) for _index in range(3)]
        log = emulator.log()
    assert rows == [expected] * 3
    assert sorted(asked) == ["tiny/1/manifest.json", "tiny/1/model.tflite", "tiny/aliases.json"]
    (init_ms,) = map(float, re.findall(r"INIT REPORT\(durationMs: ([0-9.]+)\)", log))
    assert 0 < init_ms < 10_000
    assert log.count('"message":"request"') == 3
    assert log.count('"cold_start":true') == 1


def test_what_an_event_may_bring(start: Any, objects: Objects) -> None:
    """A client's mistake is the client's: a 4xx, no failed invocation, and the next request is answered."""
    with faulty_s3(objects, lambda _key: None) as (endpoint, _asked), start(endpoint) as emulator:
        wrong = predict_event() | {"body": json.dumps({"instances": [[1, 2]]})}
        assert emulator.invoke(wrong)["statusCode"] == 400
        assert emulator.invoke({"no": "http"})["statusCode"] == 400
        assert emulator.invoke(predict_event())["statusCode"] == 200


def missing(objects: Objects) -> Objects:
    return {}


def damaged(objects: Objects) -> Objects:
    key = "tiny/1/model.tflite"
    return objects | {key: objects[key][:-1] + b"?"}


def truncated(objects: Objects) -> Objects:
    key = "tiny/1/model.tflite"
    return objects | {key: objects[key][:-100]}


def swapped(objects: Objects) -> Objects:
    key = "tiny/1/manifest.json"
    return objects | {key: objects[key].replace(b'"format_version": 1', b'"format_version": 1 ')}


def unreadable(objects: Objects) -> Objects:
    manifest = b'{"format_version": 99}'
    pin = {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "artifact": "model.tflite"}
    aliases = json.dumps({"latest": 1, "versions": {"1": pin}}).encode()
    return objects | {"tiny/1/manifest.json": manifest, "tiny/aliases.json": aliases}


@pytest.mark.parametrize(
    ("spoil", "error_type", "message"),
    [
        (missing, "ModelNotFoundError", "tiny"),
        (damaged, "DigestError", "tiny/1/model.tflite"),
        (truncated, "DigestError", "tiny/1/model.tflite"),
        (swapped, "DigestError", "tiny/1/manifest.json"),
        (unreadable, "ManifestError", "99"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_store_with_something_else_in_it(
    start: Any, objects: Objects, expected: list[float], spoil: Any, error_type: str, message: str
) -> None:
    """What must not be served fails INIT, with its reason in the log; mended, the next cold start serves."""
    served = dict(spoil(objects))
    with faulty_s3(served, lambda _key: None) as (endpoint, _asked), start(endpoint) as emulator:
        check_failed_init(emulator, endpoint, error_type, message)
        served.update(objects)
        assert predictions(emulator.invoke(predict_event())) == expected


@pytest.mark.parametrize(
    ("fault", "error_type"),
    [(503, "StoreUnavailableError"), (CUT_SHORT, "StoreUnavailableError"), (403, "StoreAccessError")],
    ids=["unavailable", "cut_short", "forbidden"],
)
def test_a_store_in_trouble(start: Any, objects: Objects, expected: list[float], fault: int, error_type: str) -> None:
    """Outages, bodies cut half way and refusals fail INIT with their own words; later the function comes up."""
    faults: dict[str, int] = {"tiny/1/model.tflite": fault}
    with faulty_s3(objects, faults.get) as (endpoint, _asked), start(endpoint) as emulator:
        check_failed_init(emulator, endpoint, error_type, "tiny/1/model.tflite")
        faults.clear()
        assert predictions(emulator.invoke(predict_event())) == expected


def test_a_store_that_is_killed(start: Any, objects: Objects, expected: list[float]) -> None:
    """Nothing listens any more: a clear error; the store back at its place, the function comes up."""
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with start(endpoint) as emulator:
        check_failed_init(emulator, endpoint, "StoreUnavailableError", "tiny/aliases.json")
        with LoopbackS3({f"bucket/{key}": data for key, data in objects.items()}, port=port):
            assert predictions(emulator.invoke(predict_event())) == expected


def test_a_model_beyond_the_functions_memory(start: Any, tmp_path: Path) -> None:
    """A model that cannot fit is refused before the kernel kills the function, with the memory that it needs."""
    publish(tmp_path / "store", "tiny", data=golden("tiny_int8") + bytes(32 * 1024 * 1024))
    objects = read_store(tmp_path / "store")
    with (
        faulty_s3(objects, lambda _key: None) as (endpoint, _asked),
        start(endpoint, AWS_LAMBDA_FUNCTION_MEMORY_SIZE="64") as emulator,
    ):
        check_failed_init(emulator, endpoint, "ModelTooLargeError", "set MemorySize to at least 82")


def check_failed_init(emulator: Emulator, endpoint: str, error_type: str, message: str) -> None:
    """INIT fails: said in the log and to who invoked the function, but not to an HTTP client."""
    error = emulator.invoke(predict_event())
    assert error["errorType"] == error_type
    assert message in error["errorMessage"]
    log = emulator.log()
    line = next(line for line in log.split("\n") if "[ERROR] " in line and error_type in line)
    assert f"[ERROR] {error_type}: " in line
    assert message in line
    for secret in (SECRET, endpoint):
        assert secret not in error["errorMessage"]
        assert SECRET not in log


def test_a_store_that_never_answers(start: Any, objects: Objects, expected: list[float]) -> None:
    """The function's timeout ends the wait, and the environment with it; the next one serves."""
    released = threading.Event()

    def hang(_key: str) -> None:
        released.wait(30)

    with faulty_s3(objects, hang) as (endpoint, _asked), start(endpoint, AWS_LAMBDA_FUNCTION_TIMEOUT="5") as emulator:
        answer = emulator.invoke(predict_event())
        assert "Task timed out after 5.00 seconds" in str(answer)
        released.set()
        assert predictions(emulator.invoke(predict_event())) == expected


def test_settings_that_are_wrong(start: Any) -> None:
    """A setting that cannot be is named at INIT, with what it may be."""
    with start("http://127.0.0.1:9", MODEL_STORE="ftp://bucket") as emulator:
        error = emulator.invoke(predict_event())
    assert "ftp://bucket" in error["errorMessage"]
    assert "s3://" in error["errorMessage"]
