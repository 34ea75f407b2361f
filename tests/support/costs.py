"""An artifact of round numbers and loads of it, for the bills; and what the benchmarks wrote of another."""

from __future__ import annotations

from typing import Any

from litelambda.costs.case import Case
from litelambda.costs.load import SHAPES, Load
from litelambda.costs.measured import Profile, Spread
from litelambda.costs.prices import load_prices

PROFILE = Profile(
    model="round version 1",
    artifact_bytes=10 * 1024 * 1024,
    warm=Spread(2.0, 4.0),
    stock=Spread(3.0, 6.0),
    init=Spread(100.0, 120.0),
    first=Spread(5.0, 8.0),
    rss_mb=100.0,
    event_bytes=2048,
    rows_per_s=50_000,
    store_ms=30.0,
    case="json_1_row",
    source="a machine",
)

MODEL = {"name": "mnist_mlp", "version": 3, "digest": "4a" * 32, "artifact_bytes": 61_520}
MACHINE = {"cpu": "a processor", "cores": 2, "python": "3.13.0", "measured": "2026-11-29"}
COLD: dict[str, Any] = {
    "handlers": {
        "hello": {"init_ms": 40.0, "init_ms_max": 44.0, "first_ms": 0.4, "first_ms_max": 0.5, "rss_mb": 14.0},
        "litelambda_lean": {"init_ms": 32.5, "init_ms_max": 33.3, "first_ms": 0.8, "first_ms_max": 0.9, "rss_mb": 25.9},
    },
    "store": {"latency_ms": 30.0, "mb_per_s": 80.0},
    "model": MODEL,
    "machine": MACHINE,
}
CASE = {
    "p50_us": 400.0,
    "p99_us": 900.0,
    "lean_us": 300.0,
    "lean_p99_us": 700.0,
    "hello_us": 250.0,
    "event_bytes": 9240,
}
WARM: dict[str, Any] = {
    "cases": {"json_1_row": CASE, "json_32_rows": {**CASE, "lean_us": 2000.0, "event_bytes": 271_590}},
    "model": MODEL,
    "machine": MACHINE,
}
BATCH = {"cases": {"npy": {"rows_per_s": 567_364}, "jsonl": {"rows_per_s": 39_137}}, "model": MODEL}


def make_case(
    requests: float = 3_000_000, shape: str = "flat", request_bytes: int = 2048, batch_rows: float = 0, **fields: Any
) -> Case:
    """A case of that artifact: 2 KB in, 1 KB out, and a cold start for one request in a hundred."""
    load = Load(requests, SHAPES[shape], request_bytes, 1024, batch_rows, cold_share=0.01)
    return Case(load, PROFILE, load_prices(), **fields)
