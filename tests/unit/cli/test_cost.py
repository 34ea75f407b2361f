"""`litelambda cost`, from its options to its table, its JSON and its chart."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litelambda.bench.cold import benchmark as cold
from litelambda.bench.warm import benchmark as warm
from litelambda.cli.main import main
from litelambda.costs.bills import PLATFORMS
from support.costs import COLD, WARM

LOAD = ["--requests", "2e6"]


@pytest.fixture
def bench(tmp_path: Path) -> list[str]:
    """Files of both benchmarks, as options."""
    for name, document in (("cold", COLD), ("warm", WARM)):
        (tmp_path / f"{name}.json").write_text(json.dumps(document))
    return ["--bench", str(tmp_path / "cold.json"), "--bench", str(tmp_path / "warm.json")]


def test_a_table_for_a_person(bench: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """The recommended size, the platforms by price, and what was assumed."""
    assert main(["cost", *bench, *LOAD, "--shape", "office"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(
        "mnist_mlp version 3, json_1_row, measured on a processor, 2 cores, Python 3.13.0, 2026-11-29"
    )
    assert "2,000,000 requests a month, 2.05 per second in the busiest hour" in said  # 2e6 / 30.4167 x 0.9 / 8 / 3600
    assert "recommended: 1769 MB" in said
    assert "Lambda, function URL" in said


def test_what_the_benchmark_doubted_is_repeated(
    bench: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Figures of a busy machine say so here too."""
    (tmp_path / "cold.json").write_text(json.dumps({**COLD, "notes": ["the machine was busy"]}))
    assert main(["cost", *bench, *LOAD]) == 0
    assert "of the measurement: the machine was busy" in capsys.readouterr().out


def test_json_for_a_script(bench: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """One document; the load is as the options say."""
    assert main(["cost", *bench, *LOAD, "--memory", "512", "--cold-share", "0.5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["load"]["cold_starts"] == 1_000_000
    assert document["load"]["request_bytes"] == 9240
    assert document["function"]["memory_mb"] == 512


def test_a_chart(bench: list[str], tmp_path: Path) -> None:
    """It is written where it was asked for, with a line for each platform."""
    assert main(["cost", *bench, *LOAD, "--chart", str(tmp_path / "costs.svg")]) == 0
    chart = (tmp_path / "costs.svg").read_text()
    assert chart.startswith("<?xml")
    assert [each.title for each in PLATFORMS.values() if f"<!-- {each.title} -->" not in chart] == []


def test_a_model_is_measured_now(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Cold with a store as slow as S3, and warm, by the benchmarks themselves."""
    asked: list[Any] = []
    monkeypatch.setattr(cold, "run", lambda options: asked.append(options) or COLD)
    monkeypatch.setattr(warm, "run", lambda options: asked.append(options) or WARM)
    assert main(["cost", "mnist_mlp", *LOAD, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "mnist_mlp version 3"
    assert [options.model for options in asked] == ["mnist_mlp", "mnist_mlp"]
    assert (asked[0].store_latency_ms, asked[0].handlers) == (30.0, "hello,litelambda_lean")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "give either MODEL, which is measured now, or --bench FILE.json of a measurement"),
        (["m", "--bench", "x.json"], "give either MODEL, which is measured now, or --bench FILE.json of a measurement"),
        (["--bench", "gone.json"], "--bench gone.json: "),
        (["BENCH", "--memory", "64"], "--memory 64: use 128 to 10240 MB"),
        (["BENCH", "--shape", "busy"], "--shape busy: use flat, office, peak, or 24 numbers"),
        (["BENCH", "--chart", "costs.pdf"], "--chart costs.pdf: expected a .svg or .png file"),
        (["BENCH", "--batch-rows", "5"], "--batch-rows needs rows per second: add --bench FILE"),
        (["BENCH", "--region", "mars-1"], "no prices for the region 'mars-1'"),
        (["BENCH", "--cpu-factor", "0"], "--cpu-factor 0: use a number greater than 0"),
        (["BENCH", "--request-bytes", "-1"], "--request-bytes -1: use a number from 0 to"),
    ],
)
def test_wrong_usage_is_one_line(
    options: list[str], said: str, bench: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """With exit code 2, and what to do."""
    given = [part for option in options for part in (bench if option == "BENCH" else [option])]
    assert main(["cost", *LOAD, *given]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"litelambda: error: {said}")
    assert error.count("\n") == 1


def test_choose_writes_markdown_and_prints_json(
    bench: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both say the same of the same load."""
    page = tmp_path / "platforms.md"
    assert main(["choose", *bench, *LOAD, "--markdown", str(page), "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["platforms"]["lambda-http-api"]["price"]["text"] in page.read_text()
