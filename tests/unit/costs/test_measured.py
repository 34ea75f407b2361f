"""The JSON of `litelambda bench`, as bills read it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litelambda.common.errors import UsageError
from litelambda.costs.measured import Spread, make_profile, read_documents
from support.costs import BATCH, COLD, MODEL, WARM


def test_a_profile_is_what_the_lean_function_took() -> None:
    """A request costs hello world's round trip and what the handler adds; batches are as fast as the slowest format."""
    profile = make_profile([COLD, WARM, BATCH])
    assert profile.warm == Spread(0.55, 0.95)
    assert profile.stock == Spread(0.65, 1.15)
    assert (profile.init, profile.first, profile.rss_mb) == (Spread(32.5, 33.3), Spread(0.8, 0.9), 25.9)
    assert (profile.rows_per_s, profile.event_bytes, profile.store_ms) == (39_137, 9240, 30.0)
    assert (profile.model, profile.source) == ("mnist_mlp version 3", "a processor, 2 cores, Python 3.13.0, 2026-11-29")


def test_another_request_may_be_billed() -> None:
    """Any case that bench warm measured."""
    assert make_profile([WARM, COLD], "json_32_rows").warm.ms == 2.25


def test_files_are_read_as_bench_writes_them(tmp_path: Path) -> None:
    """Whichever comes first."""
    paths = [tmp_path / "warm.json", tmp_path / "cold.json"]
    for path, document in zip(paths, (WARM, COLD), strict=True):
        path.write_text(json.dumps(document))
    assert make_profile(read_documents(paths)).warm.ms == 0.55


@pytest.mark.parametrize(
    ("documents", "case", "said"),
    [
        ([WARM], "json_1_row", "no measurement by bench cold: add --bench FILE of `litelambda bench cold --json`"),
        ([COLD, BATCH], "json_1_row", "no measurement by bench warm"),
        ([COLD, WARM], "raw_1_row", "--case raw_1_row: bench warm measured json_1_row, json_32_rows of this model"),
        (
            [COLD, {**WARM, "model": {**MODEL, "version": 4}}],
            "json_1_row",
            r"different models: cold of mnist_mlp version 3 \(4a4a4a4a4a4a\), warm of mnist_mlp version 4 ",
        ),
        (
            [COLD, {**WARM, "model": {**MODEL, "digest": "5b" * 32}}],
            "json_1_row",
            r"different models: cold of .* \(4a4a4a4a4a4a\), warm of mnist_mlp version 3 \(5b5b5b5b5b5b\)",
        ),
        (
            [COLD, {**WARM, "cases": {**WARM["cases"], "mobilenet_v2_json_1_row": WARM["cases"]["json_1_row"]}}],
            "mobilenet_v2_json_1_row",
            "--case mobilenet_v2_json_1_row: bench warm measured json_1_row, json_32_rows of this model",
        ),
        ([{**COLD, "store": {}}, WARM], "json_1_row", "the measurements lack 'latency_ms': write them again"),
        ([{**COLD, "handlers": {"usual": {}}}, WARM], "json_1_row", "the measurements lack .*: write them again"),
    ],
)
def test_measurements_that_do_not_do_are_refused(documents: list[dict[str, Any]], case: str, said: str) -> None:
    """What is missing is named, and the command that measures it."""
    with pytest.raises(UsageError, match=said):
        make_profile(documents, case)


@pytest.mark.parametrize("text", ["[]", '{"cases": {}}', '{"cases": {"a": 1}}', "{", "null"])
def test_other_files_are_refused(text: str, tmp_path: Path) -> None:
    """Whatever JSON they are, or none."""
    (tmp_path / "other.json").write_text(text)
    with pytest.raises(UsageError, match=r"--bench .*other\.json: "):
        read_documents([tmp_path / "other.json"])
