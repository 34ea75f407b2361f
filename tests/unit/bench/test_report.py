"""What the benchmarks report."""

from __future__ import annotations

import pytest

from litelambda.bench.report import ratio


@pytest.mark.parametrize(
    ("numerator", "denominator", "expected"), [(3, 2, 1.5), (1, 3, 0.333), (1, 0, None), (1, -2, None)]
)
def test_ratio_of_no_positive_time_is_none(numerator, denominator, expected):
    """A difference of medians can be negative in a short run; no ratio is made of it."""
    assert ratio(numerator, denominator) == expected
