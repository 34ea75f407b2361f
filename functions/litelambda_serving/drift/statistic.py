"""Whether counts are those of the baseline: one test for all features of a version together.

A feature's statistic is Pearson's chi-square of two samples, the window and the baseline, which is a sample too. The
cube root of Wilson and Hilferty puts features of any number of bins on one scale, on which the largest decides. What it
may be is the manifest's `limits`: the build found for several window sizes which value undrifted windows exceed once in
a hundred times, with as many features as there are, as dependent on each other, and a baseline of that size.

Source: Wilson & Hilferty 1931, "The distribution of chi-square".
"""

from __future__ import annotations

from itertools import pairwise
from math import log, sqrt

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["FALSE_ALARM_RATE", "LEAST_EXPECTED", "MIN_ROWS", "deviation", "judge", "limit"]

FALSE_ALARM_RATE = 0.01
"""Share of undrifted windows that the limits let be taken for drifted ones."""

MIN_ROWS = 50
"""Of a window: fewer say too little."""

LEAST_EXPECTED = 0.5
"""Rows in a bin: one where none was expected does not raise an alarm."""


def deviation(counts: Sequence[int], baseline: Sequence[int]) -> float:
    """How far the counts of one feature are from its baseline's, in standard deviations of no drift.

    >>> round(deviation([30, 20], [500, 500]), 2)
    0.98
    """
    rows, expected = sum(counts), sum(baseline)
    ours, theirs = sqrt(expected / rows), sqrt(rows / expected)
    least = LEAST_EXPECTED * (rows + expected) / min(rows, expected)
    chi_square = sum(
        (ours * here - theirs * there) ** 2 / max(here + there, least)
        for here, there in zip(counts, baseline, strict=True)
    )
    freedom = max(1, len(baseline) - 1)
    spread = 2 / (9 * freedom)
    cube_root: float = (chi_square / freedom) ** (1 / 3)
    return (cube_root - 1 + spread) / sqrt(spread)


def limit(limits: Sequence[Sequence[float]], rows: int) -> float:
    """The largest deviation of a window of so many rows, over all features, that is taken for none.

    Args:
        limits: the manifest's: pairs of rows and deviation, ascending; between them the logarithm of rows counts.
        rows: of the window.

    >>> limit([[50, 3.2], [200, 3.0]], 100), limit([[50, 3.2], [200, 3.0]], 10_000)
    (3.1, 3.0)
    """
    at = min(max(rows, limits[0][0]), limits[-1][0])
    for (low, before), (high, after) in pairwise(limits):
        if at <= high:
            return round(before + (after - before) * log(at / low) / log(high / low), 6)
    return limits[-1][1]


def judge(document: Mapping[str, Any], counts: Sequence[Sequence[int]]) -> tuple[float, list[float]]:
    """Compare a window with the baseline.

    Args:
        document: the manifest's `drift`.
        counts: by feature, as `DriftCounter.take` gives them; at least `MIN_ROWS` rows.

    Returns:
        The score, from 1 on of which the window has drifted, and the deviation of each feature.
    """
    features = document["features"]
    found = [deviation(here, feature["counts"]) for here, feature in zip(counts, features, strict=True)]
    return max(found) / limit(document["limits"], sum(counts[0])), found
