"""The statistics of the benchmarks."""

from __future__ import annotations

import pytest

from litelambda.bench.summary import percentile, ratio, spread


@pytest.mark.parametrize(
    ("values", "percent", "expected"),
    [([5.0], 99, 5.0), ([3, 1, 2], 50, 2), ([4, 3, 2, 1], 50, 2), (range(1, 101), 99, 99), (range(1, 101), 100, 100)],
)
def test_percentile_is_the_nearest_rank(values, percent, expected):
    """A percentile is one of the values, whatever their order."""
    assert percentile(values, percent) == expected


def test_spread_names_median_and_extremes():
    """Three keys under one name, the median in the middle of an even count."""
    assert spread("init_ms", [4.0, 1.0, 2.0, 3.0]) == {"init_ms": 2.5, "init_ms_min": 1.0, "init_ms_max": 4.0}


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"), [(3, 2, 1.5), (1, 3, 0.333), (1, 0, None), (1, -2, None)]
)
def test_ratio_of_no_positive_time_is_none(numerator, denominator, expected):
    """A difference of medians can be negative in a short run; no ratio is made of it."""
    assert ratio(numerator, denominator) == expected
