"""The charts of the benchmarks: files that a README can show."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from litelambda.bench.charts import check_chart_path, draw_cold, draw_warm
from litelambda.common.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = {"cores": 2, "cpu": "some processor", "python": "3.13.0"}


def handler(title: str, init_ms: float) -> dict[str, Any]:
    return {"title": title, "init_ms": init_ms, "first_ms": 1.0}


COLD = {
    "handlers": {
        "hello": handler("hello world", 40.0),
        "litelambda_lean": handler("ours", 35.0),
        "usual": handler("the usual one", 300.0),
        "tensorflow": handler("all of TensorFlow", 5000.0),
    },
    "runs": 3,
    "store": {"latency_ms": 30.0},
    "model": {"name": "tiny"},
    "machine": MACHINE,
}
WARM = {
    "cases": {
        "json_1_row": {"raw_us": 10.0, "lean_us": -3.0, "p50_us": 300.0, "usual_us": 900.0},
        "mobilenet_v2_raw_1_row": {"raw_us": 3300.0, "lean_us": 3400.0, "p50_us": 3500.0, "usual_us": 9000.0},
    },
    "invokes": 1000,
    "machine": MACHINE,
}


@pytest.mark.parametrize(("draw", "result"), [(draw_cold, COLD), (draw_warm, WARM)])
@pytest.mark.parametrize("kind", ["svg", "png"])
def test_a_chart_is_the_same_file_for_the_same_result(draw: Any, result: Any, kind: str, tmp_path: Path) -> None:
    """Nothing of the clock or of chance is in a chart, so that a repository sees only real changes."""
    first, second = tmp_path / f"first.{kind}", tmp_path / f"second.{kind}"
    draw(result, first)
    draw(result, second)
    assert first.read_bytes() == second.read_bytes()
    if kind == "svg":
        assert ET.parse(first).getroot().tag.endswith("svg")
    else:
        assert first.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["chart.pdf", "chart", "absent/chart.svg"])
def test_a_chart_that_cannot_be_written_is_refused(name: str, tmp_path: Path) -> None:
    """The mistake is said before minutes of measuring, with what would do."""
    with pytest.raises(UsageError, match=r"expected a \.svg or \.png"):
        check_chart_path(tmp_path / name)


def test_no_chart_is_no_mistake() -> None:
    """Without --chart there is nothing to check."""
    check_chart_path(None)
