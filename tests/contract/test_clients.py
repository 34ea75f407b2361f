"""Real clients, each in its own environment, against the service; every check of theirs is a test here."""

from __future__ import annotations

import json
import subprocess
from typing import Any
from urllib.request import Request, urlopen

import pytest

from support.contract_clients import CLIENTS, checks_of, run_checks, tool

SCRIPTS = {
    "tritonclient_http.py": "triton",
    "tritonclient_aio.py": "triton",
    "triton_examples.py": "triton",
    "kserve_client.py": "kserve",
    "ovmsclient_http.py": "ovmsclient",
    "mlserver_types.py": "mlserver",
}


@pytest.mark.parametrize(("script", "check"), [(script, check) for script in SCRIPTS for check in checks_of(script)])
def test_client(service: str, script: str, check: str) -> None:
    """What the client's users do works, unchanged."""
    failure = run_checks(SCRIPTS[script], script, service)[check]
    assert not failure, failure


def test_every_script_is_run() -> None:
    """No client's checks are forgotten."""
    assert {path.name for path in CLIENTS.glob("*.py")} == {"run_checks.py", *SCRIPTS}


@pytest.mark.parametrize("content_type", ["application/json", "application/x-www-form-urlencoded", None])
def test_the_tensorflow_serving_tutorial(service: str, content_type: str | None) -> None:
    """half_plus_two answers as in its tutorial, whatever content type curl or a script sends."""
    data = b'{"instances": [1.0, 2.0, 5.0]}'
    request = Request(f"http://{service}/v1/models/half_plus_two:predict", data)
    request.add_header("Content-Type", content_type or "")
    with urlopen(request) as response:
        assert json.load(response) == {"predictions": [2.5, 3.0, 4.5]}


def test_mlserver_infer(service: str, tmp_path: Any) -> None:
    """MLServer's batch command scores a file of requests, binary and not."""
    lines = [
        {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "data": [index / 10, 0.2, 0.3, 0.4]}]}
        for index in range(10)
    ]
    source, target = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    for flags in ([], ["--binary-data"]):
        command = [tool("mlserver", "mlserver"), "infer", "--url", service, "--model-name", "tiny",
                   "--input-data-path", str(source), "--output-data-path", str(target), *flags]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        answers = [json.loads(line) for line in target.read_text().splitlines()]
        assert len(answers) == len(lines), done.stdout + done.stderr
        for answer in answers:
            assert answer["outputs"][0]["shape"] == [1, 3], answer


def test_schemathesis(service: str, tmp_path: Any) -> None:
    """The service keeps every promise of its OpenAPI document, whatever is generated from it; nothing is a 5xx."""
    explained = r"(?!tiny[:/]explain$)[^?]*explain$"  # which are alike, and take many runs
    most = f"^(?!/v[12]/models/(dtype_|half|mobilenet|two_by_two/(versions|labels)|{explained}))"
    command = [tool("schemathesis", "schemathesis"), "--config-file", str(CLIENTS.parent / "schemathesis.toml"), "run",
               f"http://{service}/openapi.json", "--max-examples", "8", "--phases", "coverage,fuzzing",
               "--seed", "1", "--include-path-regex", most]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
