"""How far undrifted windows are from a baseline: the limits that one in a hundred of them exceeds.

Found by drawing windows and baselines from the reference rows, each with all of its features: what depends on what, how
many bins and features there are, how rare some values are, and that the baseline is a sample too are in the draws, and
no theory has to allow for them. `litelambda_serving.drift.statistic` judges windows by what is found here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from litelambda_serving.drift.statistic import FALSE_ALARM_RATE, LEAST_EXPECTED, MIN_ROWS

Counts = NDArray[np.float32]

WINDOWS = (50, 200, 1000, 5000)
"""Sizes of windows that limits are found for."""

_DRAWS = 20_000


def find_limits(bins: NDArray[np.intp], num_bins: Sequence[int], seed: int = 0) -> list[list[float]]:
    """The manifest's `drift.limits`: pairs of a window's rows and the largest deviation that is taken for no drift.

    Args:
        bins: of each reference row (first index), the bin of each feature.
        num_bins: of each feature.
        seed: of the draws.
    """
    draws = _Draws(bins, num_bins, np.random.default_rng(seed))
    baselines = draws.samples(len(bins))
    starts = draws.starts
    limits = []
    for rows in WINDOWS:
        found = deviations(draws.samples(rows), baselines, starts).max(axis=1)
        limits.append([rows, round(float(np.quantile(found, 1 - FALSE_ALARM_RATE)), 4)])
    return limits


def deviations(windows: Counts, baselines: Counts, starts: Sequence[int]) -> NDArray[np.float64]:
    """`litelambda_serving.drift.statistic.deviation` of many windows: (windows, features).

    Args:
        windows: the counts of all bins of all features, one after the other; a window each.
        baselines: the same of a baseline for each window, or of one for all.
        starts: where each feature begins among the bins.
    """
    rows = windows[:, : (*starts, windows.shape[1])[1]].sum(axis=1, keepdims=True)
    expected = baselines[:, : (*starts, windows.shape[1])[1]].sum(axis=1, keepdims=True)
    difference = np.sqrt(expected / rows) * windows - np.sqrt(rows / expected) * baselines
    least = LEAST_EXPECTED * (rows + expected) / np.minimum(rows, expected)
    chi_square = np.add.reduceat(difference**2 / np.maximum(windows + baselines, least), starts, axis=1)
    freedom = np.maximum(np.diff([*starts, windows.shape[1]]) - 1, 1)
    spread = 2 / (9 * freedom)
    found: NDArray[np.float64] = (np.cbrt(chi_square / freedom) - 1 + spread) / np.sqrt(spread)
    return found


class _Draws:
    """Samples of the reference rows, with replacement, as counts of all bins.

    Large samples are sums of small ones, of which there are many: a draw of 5,000 rows costs five additions.
    """

    def __init__(self, bins: NDArray[np.intp], num_bins: Sequence[int], rng: np.random.Generator) -> None:
        self._rng = rng
        self.starts = [0, *np.cumsum(num_bins)[:-1].tolist()]
        width = int(sum(num_bins))
        chosen = rng.integers(len(bins), size=(_DRAWS, MIN_ROWS))
        counts = np.empty((_DRAWS, width), np.float32)
        numbers = np.arange(_DRAWS)[:, np.newaxis]
        for feature, (start, size) in enumerate(zip(self.starts, num_bins, strict=True)):
            places = (bins[:, feature][chosen] + size * numbers).ravel()
            counts[:, start : start + size] = np.bincount(places, minlength=_DRAWS * size).reshape(_DRAWS, size)
        self._counts = {MIN_ROWS: counts}
        for before, rows in itertools.pairwise(WINDOWS):
            self._counts[rows] = self._sum(before, rows // before)

    def samples(self, rows: int) -> Counts:
        """As many samples of about so many rows as there are draws: a multiple of the smallest window's."""
        found = np.zeros_like(self._counts[MIN_ROWS])
        left = max(rows, MIN_ROWS)
        for size in reversed(WINDOWS):
            if count := left // size:
                found += self._sum(size, count)
                left -= count * size
        return found

    def _sum(self, size: int, count: int) -> Counts:
        """Sums of `count` samples of `size` rows that were drawn before."""
        found = np.zeros_like(self._counts[size])
        for _ in range(count):
            found += self._counts[size][self._rng.integers(_DRAWS, size=_DRAWS)]
        return found
