"""An artifact of round numbers, and loads of it, for the bills."""

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


def make_case(
    requests: float = 3_000_000, shape: str = "flat", request_bytes: int = 2048, batch_rows: float = 0, **fields: Any
) -> Case:
    """A case of that artifact: 2 KB in, 1 KB out, and a cold start for one request in a hundred."""
    load = Load(requests, SHAPES[shape], request_bytes, 1024, batch_rows, cold_share=0.01)
    return Case(load, PROFILE, load_prices(), **fields)
