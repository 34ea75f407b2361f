"""Triton's load generator, perf_analyzer, against the service: what it must be told to run through to its report."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path
from urllib.request import urlopen

import pytest

from support.contract_clients import tool

REQUESTS = 64


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


def run(service: str, folder: Path, *options: str) -> tuple[dict[str, str], list[dict[str, list[int]]]]:
    """One measurement of a number of requests; its report, and the times of each request."""
    report, profile = folder / "report.csv", folder / "profile.json"
    arguments = ["-u", service, "-i", "http", "--request-count", str(REQUESTS), "-f", str(report),
                 "--profile-export-file", str(profile), "--verbose-csv", *options]  # fmt: skip
    done = subprocess.run([*command(), *arguments], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (row,) = csv.DictReader(report.read_text().splitlines())
    (experiment,) = json.loads(profile.read_text())["experiments"]
    row |= dict(line.strip().split(": ", 1) for line in done.stdout.splitlines() if " count: " in line)
    return row, experiment["requests"]


@pytest.mark.parametrize("concurrency", [1, 4, 16])
@pytest.mark.parametrize("form", ["json", "binary"])
@pytest.mark.parametrize("batch", [1, 8])
def test_it_reports(service: str, tmp_path: Path, batch: int, form: str, concurrency: int) -> None:
    """It finds shapes and batch size by itself, sends its requests, and its counts and ours agree."""
    before = counts(service, "tiny")
    report, requests = run(
        service, tmp_path, "-m", "tiny", "-b", str(batch), "--concurrency-range", str(concurrency),
        "--input-tensor-format", form, "--output-tensor-format", form,
    )  # fmt: skip
    after = counts(service, "tiny")
    assert len(requests) >= REQUESTS
    assert all(len(request["response_timestamps"]) == 1 for request in requests)
    assert float(report["Inferences/Second"]) > 0
    for part in ("success", "queue", "compute_input", "compute_infer", "compute_output"):
        assert after[part] - before[part] == len(requests)
    assert after["rows"] - before["rows"] == len(requests) * batch
    assert int(report["Inference count"]) == int(report["Successful request count"]) * batch
    for part in ("Server Compute Input", "Server Compute Infer", "Server Compute Output"):
        assert int(report[part]) > 0
    assert int(report["Server Queue"]) == 0


def test_it_is_told_where_batches_are_not_proven(service: str, tmp_path: Path) -> None:
    """A model whose rows run one by one has no batch size; with its shape given, any number of rows is taken."""
    _, requests = run(service, tmp_path, "-m", "labelled", "--shape", "x:8,4", "--concurrency-range", "2")
    assert len(requests) >= REQUESTS
    done = subprocess.run(
        [*command(), "-u", service, "-i", "http", "-m", "labelled", "-b", "8"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "does not support batching" in done.stdout + done.stderr
