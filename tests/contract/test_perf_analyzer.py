"""Triton's load generator, perf_analyzer, against the service: what it must be told to run through to its report."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from support.contract_clients import tool

REQUESTS, ATTEMPTS = 64, 5


def command() -> list[str]:
    """The binary out of its wheel, behind what starts it on an older system; skips the test where nothing can."""
    python = tool("perf-analyzer")
    run = Path(python).parents[1] / "libraries" / "run"
    if not run.exists():
        pytest.skip("perf_analyzer needs Linux with glibc 2.38, or a Debian whose archive has it")
    (binary,) = Path(python).parents[1].glob("lib/python*/site-packages/perf_analyzer/bin/perf_analyzer")
    return [str(run), str(binary)]


def counts(service: str, model: str) -> dict[str, int]:
    """What the service has counted: requests by part, and rows."""
    with urlopen(f"http://{service}/v2/models/{model}/stats") as response:
        (stats,) = json.load(response)["model_stats"]
    return {
        "rows": stats["inference_count"],
        **{name: part["count"] for name, part in stats["inference_stats"].items()},
    }


def run(
    service: str, folder: Path, model: str, *options: str
) -> tuple[dict[str, str], list[dict[str, list[int]]], dict[str, int]]:
    """One measurement of a number of requests; its report, the times of each request, and what the service counted.

    perf_analyzer forgets requests that are answered before it begins to look, one run in thirty with 16 at once, and
    then waits without end for as many again, which it never sends: a run in which the service has answered them all is
    made again.
    """
    report, profile = folder / "report.csv", folder / "profile.json"
    arguments = ["-u", service, "-i", "http", "--request-count", str(REQUESTS), "-f", str(report),
                 "--profile-export-file", str(profile), "--verbose-csv", "-m", model, *options]  # fmt: skip
    for _ in range(ATTEMPTS):
        before = counts(service, model)
        done = finished([*command(), *arguments])
        found = {name: count - before[name] for name, count in counts(service, model).items()}
        if done is not None:
            break
        assert found["success"] == REQUESTS
    assert done is not None, f"perf_analyzer does not end, {ATTEMPTS} times"
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    (experiment,) = json.loads(profile.read_text())["experiments"]
    row |= dict(line.strip().split(": ", 1) for line in done.stdout.splitlines() if " count: " in line)
    return row, experiment["requests"], found


def finished(arguments: list[str]) -> subprocess.CompletedProcess[str] | None:
    """A program that has ended, or None where it does not."""
    try:
        return subprocess.run(arguments, capture_output=True, text=True, timeout=30, check=False)
    except subprocess.TimeoutExpired:
        return None


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("form", ["json", "binary"])
@pytest.mark.parametrize("batch", [1, 8])
def test_it_reports(service: str, tmp_path: Path, batch: int, form: str, concurrency: int) -> None:
    """It finds shapes and batch size by itself, sends its requests, and its counts and ours agree."""
    report, requests, found = run(
        service, tmp_path, "tiny", "-b", str(batch), "--concurrency-range", str(concurrency),
        "--input-tensor-format", form, "--output-tensor-format", form,
    )  # fmt: skip
    assert len(requests) >= REQUESTS
    assert all(len(request["response_timestamps"]) == 1 for request in requests)
    assert float(report["Inferences/Second"]) > 0
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert found[part] == len(requests)
    assert found["rows"] == len(requests) * batch
    assert int(report["Inference count"]) == int(report["Successful request count"]) * batch
    for part in ("Server Compute Input", "Server Compute Infer", "Server Compute Output"):
        assert int(report[part]) > 0
    assert int(report["Server Queue"]) == 0


def test_it_is_told_where_batches_are_not_proven(service: str, tmp_path: Path) -> None:
    """A model whose rows run one by one has no batch size; with its shape given, any number of rows is taken."""
    _, requests, _ = run(service, tmp_path, "labelled", "--shape", "x:8,4", "--concurrency-range", "2")
    assert len(requests) >= REQUESTS
    done = subprocess.run(
        [*command(), "-u", service, "-i", "http", "-m", "labelled", "-b", "8"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "does not support batching" in done.stdout + done.stderr
