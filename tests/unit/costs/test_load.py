"""Loads: shapes of a day, how many requests are under way at once, and how many start cold."""

from __future__ import annotations

import numpy as np
import pytest

from litelambda.common.errors import UsageError
from litelambda.costs.load import SHAPES, Load, concurrency, parse_shape


@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_spreads_a_day(name: str) -> None:
    """Its 24 shares are one day."""
    assert len(parse_shape(name)) == 24
    assert sum(parse_shape(name)) == pytest.approx(1)


def test_a_shape_of_ones_own() -> None:
    """Of 24 numbers the proportions count."""
    shape = parse_shape(",".join(["0"] * 22 + ["1", "3"]))
    assert shape[-3:] == (0, 0.25, 0.75)
    assert max(Load(730_000, shape).rates) == pytest.approx(24_000 * 0.75 / 3600)


@pytest.mark.parametrize(
    "text", ["flat,", "1,2,3", "busy", ",".join(["0"] * 24), ",".join(["-1"] * 24), "nan," * 23 + "1"]
)
def test_other_shapes_are_refused(text: str) -> None:
    """The message lists what there is."""
    with pytest.raises(UsageError, match="use flat, office, peak, or 24 numbers with commas, one for each hour"):
        parse_shape(text)


@pytest.mark.parametrize("fields", [{"requests": -1}, {"requests": float("nan")}, {"requests": 1, "cold_share": 1.5}])
def test_impossible_loads_are_refused(fields: dict[str, float]) -> None:
    """Negative numbers, more than all requests, and what is not a number."""
    with pytest.raises(UsageError, match="use a number from 0 to"):
        Load(**fields)


@pytest.mark.parametrize(("rate", "busy_s"), [(0.5, 0.1), (5, 0.3), (40, 0.5), (2000, 0.5)])
def test_concurrency_is_rarely_exceeded(rate: float, busy_s: float) -> None:
    """As many requests as numpy draws from a Poisson distribution are more than that one time in a thousand."""
    drawn = np.random.default_rng(7).poisson(rate * busy_s, 200_000)
    assert np.mean(drawn > concurrency(rate, busy_s)) <= 0.0013


def simulate(rate: float, busy_s: float, idle_s: float, requests: int = 30_000) -> float:
    """The cold share of requests at random times, each taken by the first environment that is free and still there."""
    free_from: list[float] = []
    cold, now = 0, 0.0
    for gap in np.random.default_rng(11).exponential(1 / rate, requests):
        now += float(gap)
        place = next((i for i, ends in enumerate(free_from) if ends <= now), len(free_from))
        if place == len(free_from):
            free_from.append(0.0)
            cold += 1
        elif now - free_from[place] > idle_s:
            cold += 1
        free_from[place] = now + busy_s
    return cold / requests


@pytest.mark.parametrize(("rate", "busy_s", "idle_s"), [(0.001, 0.01, 600), (0.01, 2, 300), (0.2, 1, 60), (2, 1, 30)])
def test_the_cold_share_is_that_of_a_simulation(rate: float, busy_s: float, idle_s: float) -> None:
    """Environments that are asked at random, one by one, start cold as often as the formula says."""
    load = Load(rate * 730 * 3600, idle_s=idle_s)
    share = load.cold_starts(busy_s) / load.requests
    assert share == pytest.approx(simulate(rate, busy_s, idle_s), rel=0.2)


def test_a_load_that_rises_starts_environments() -> None:
    """Where an hour keeps three environments more than the one before it, three requests a day are cold."""
    steady, rising = (Load(8e8, shape).cold_starts(0.05) for shape in (SHAPES["flat"], SHAPES["peak"]))
    assert rising > steady


def test_a_cold_share_that_is_known_is_taken() -> None:
    """Nothing is computed."""
    assert Load(1000, cold_share=0.2).cold_starts(1.0) == 200
