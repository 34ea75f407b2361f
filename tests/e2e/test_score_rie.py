"""The batch function in Lambda's Runtime Interface Emulator, its S3 and its queue played by moto's server."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import numpy as np
import pytest

from litelambda.bench.emulator.environment import library_path
from litelambda.bench.peers import make_peer_environment
from litelambda.commands.package import PYTHON_VERSION, package
from litelambda.common.errors import BenchError
from litelambda.common.paths import FUNCTIONS
from support.golden_store import publish
from support.moto_server import MotoServer
from support.rie import ARCH, EMULATORS, Emulator
from support.scoring_files import as_jsonl, expected, make_rows, read_jsonl
from support.sqs_poller import REGION, Queues

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not EMULATORS, reason="no Runtime Interface Emulator here: say `make setup-sam`"),
]
TIMEOUT_S = 30


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An AWS on loopback."""
    server = MotoServer()
    for name, value in {
        "AWS_ENDPOINT_URL": server.url,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_DEFAULT_REGION": REGION,
        "AWS_REGION": REGION,
    }.items():
        monkeypatch.setenv(name, value)
    with server:
        yield server.url


@pytest.fixture(scope="module")
def function(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, str]:
    """Interpreter, code and packages: the deployment package on its own Python, else the sources on this one."""
    try:
        python = make_peer_environment("runtime-client", PYTHON_VERSION)
    except BenchError:
        return sys.executable, FUNCTIONS, library_path()
    tree = package(ARCH, tmp_path_factory.mktemp("package"), "score").directory
    return str(python), tree, library_path()  # boto3, which the real runtime has


def test_files_through_the_queue(endpoint: str, function: tuple[str, Path, str], tmp_path: Path) -> None:
    """In the real runtime client: real rows scored, a second delivery that changes nothing, poison set apart."""
    publish(tmp_path, "tiny_int8")
    s3, queues = boto3.client("s3"), Queues(boto3.client("sqs"), "score")
    s3.create_bucket(Bucket="data", CreateBucketConfiguration={"LocationConstraint": REGION})
    for path in tmp_path.rglob("*.*"):
        s3.put_object(Bucket="data", Key=f"models/{path.relative_to(tmp_path)}", Body=path.read_bytes())
    rows = make_rows(5000)
    etag = s3.put_object(Bucket="data", Key="in/a.jsonl", Body=as_jsonl(rows))["ETag"].strip('"')
    detail = {"bucket": {"name": "data"}, "object": {"key": "in/a.jsonl", "etag": etag}}
    event = {"source": "aws.s3", "detail-type": "Object Created", "detail": detail}
    python, tree, packages = function
    environ = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": os.pathsep.join([str(tree), packages]),
        "PYTHONDONTWRITEBYTECODE": "1",
        "_HANDLER": "score.handler",
        "AWS_LAMBDA_FUNCTION_NAME": "score",
        "AWS_LAMBDA_FUNCTION_TIMEOUT": str(TIMEOUT_S),
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "3538",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": endpoint,
        "MODEL_STORE": "s3://data/models",
        "MODEL_NAME": "tiny_int8",
        "SCORE_QUEUE_URL": queues.url,
    }
    emulator = Emulator([python, "-m", "awslambdaric", "score.handler"], tree, environ, tmp_path / "log")
    try:
        for body in (event, event, "poison"):
            queues.send(body)
        queues.drain(emulator.invoke)
        answer = emulator.invoke({"input": "s3://data/none.jsonl"})
    finally:
        emulator.close()
    log = emulator.log()
    assert answer.get("errorType") == "InputNotFoundError", log
    assert queues.dead() == ["poison"]
    listed = [entry["Key"] for entry in s3.list_objects_v2(Bucket="data", Prefix="predictions/in/")["Contents"]]
    (output,) = [key for key in listed if key.endswith(".jsonl")]
    lines = read_jsonl(s3.get_object(Bucket="data", Key=output)["Body"].read())
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(rows))
    (summary_key,) = [key for key in listed if key.endswith(".summary.json")]
    summary = json.loads(s3.get_object(Bucket="data", Key=summary_key)["Body"].read())
    assert summary["rows_out"] == 5000
    assert summary["cost_usd"] > 0
    assert '"rows_out":5000,"rows_bad":0' in log.replace(" ", "")
