"""The alarm's rate of false alarms and its power, measured on thousands of windows."""

from __future__ import annotations

import numpy as np
import pytest

from litelambda.evaluation.drift_limits import deviations, find_limits
from litelambda_serving.drift.statistic import deviation, judge, limit

WINDOWS = 10_000
ROWS = (50, 120, 500, 2000, 5000)


class World:
    """Eight features that depend on each other, some with rare values: what windows and baselines are drawn from.

    Pairs of features are drawn together, from a table of both: the first two agree in most rows, the others hardly.
    """

    def __init__(self) -> None:
        rng = np.random.default_rng(7)
        same = np.diag(np.full(10, 0.09)) + np.full((10, 10), 0.001)
        loose = rng.dirichlet(np.full(30, 2.0)).reshape(10, 3)
        rare = np.outer([0.6, 0.3, 0.09, 0.01], [0.9, 0.08, 0.018, 0.002])
        classes = np.outer(rng.dirichlet(np.full(10, 5.0)), np.full(5, 0.2))
        self._pairs = [table / table.sum() for table in (same, loose, rare, classes)]
        self.sizes = [size for table in self._pairs for size in table.shape]
        self.starts = [0, *np.cumsum(self.sizes)[:-1].tolist()]

    def counts(self, rows, times, rng):
        """Counts of all bins in `times` samples."""
        parts = []
        for table in self._pairs:
            found = rng.multinomial(rows, table.ravel(), size=times).reshape(times, *table.shape)
            parts += [found.sum(axis=2), found.sum(axis=1)]
        return np.concatenate(parts, axis=1).astype(np.float32)

    def rows(self, count, rng):
        """The bins of some rows: (rows, features)."""
        columns = []
        for table in self._pairs:
            cells = rng.choice(table.size, size=count, p=table.ravel())
            columns += [*np.divmod(cells, table.shape[1])]
        return np.stack(columns, axis=1)


@pytest.fixture(scope="module")
def world():
    return World()


@pytest.fixture(scope="module", params=[300, 4000], ids=["300 rows", "4000 rows"])
def baseline_rows(request):
    return request.param


@pytest.fixture(scope="module")
def limits(world, baseline_rows):
    """What the build finds from reference rows."""
    return find_limits(world.rows(baseline_rows, np.random.default_rng(1)), world.sizes)


def highest(world, windows, baselines):
    return deviations(windows, baselines, world.starts).max(axis=1)


@pytest.mark.parametrize("rows", ROWS)
def test_one_undrifted_window_in_a_hundred_is_taken_for_drift(world, baseline_rows, limits, rows):
    """1 % ± 0.3 of 10,000 windows, each with a baseline of its own, whatever the windows' size and the features."""
    rng = np.random.default_rng(rows)
    found = highest(world, world.counts(rows, WINDOWS, rng), world.counts(baseline_rows, WINDOWS, rng))
    assert 0.007 <= np.mean(found > limit(limits, rows)) <= 0.013


def test_continuous_features_are_calibrated_through_their_bins():
    """The same from numbers on, the bins cut at the quantiles of other rows than those that are counted."""
    rng = np.random.default_rng(3)
    edges = np.sort(rng.standard_normal((WINDOWS, 100), dtype=np.float32), axis=1)[:, 9:99:10]

    def counts(rows):
        values = rng.standard_normal((WINDOWS, rows), dtype=np.float32)
        bins = sum((values >= edge[:, np.newaxis]).astype(np.int32) for edge in edges.T)
        numbers = 10 * np.arange(WINDOWS)[:, np.newaxis]
        return np.bincount((bins + numbers).ravel(), minlength=10 * WINDOWS).reshape(WINDOWS, 10).astype(np.float32)

    baselines, windows = counts(400), counts(200)
    limits = find_limits(np.repeat(np.arange(10), baselines[0].astype(int))[:, np.newaxis], [10])
    found = deviations(windows, baselines, [0])[:, 0]
    assert 0.007 <= np.mean(found > limit(limits, 200)) <= 0.013


def test_the_usual_index_fires_on_most_undrifted_windows(world):
    """PSI above 0.1, on windows and baselines of 100 rows of one feature of ten bins: what the calibration is for."""
    rng = np.random.default_rng(5)
    shares, expected = (np.maximum(rng.multinomial(100, np.full(10, 0.1), size=WINDOWS) / 100, 1e-4) for _ in range(2))
    psi = ((shares - expected) * np.log(shares / expected)).sum(axis=1)
    assert np.mean(psi > 0.1) > 0.8


def test_a_shift_of_half_a_standard_deviation_is_found(limits, baseline_rows):
    """In one of eight features: at least 95 % of the windows, from 400 rows on, even with a baseline of 300."""
    rng = np.random.default_rng(11)
    edges = np.array([-1.2816, -0.8416, -0.5244, -0.2533, 0.0, 0.2533, 0.5244, 0.8416, 1.2816])
    shifted = rng.standard_normal((2000, 400)) + 0.5
    bins = np.searchsorted(edges, shifted, side="right")
    counts = np.bincount((bins + 10 * np.arange(2000)[:, np.newaxis]).ravel(), minlength=20_000).reshape(2000, 10)
    baselines = rng.multinomial(baseline_rows, np.full(10, 0.1), size=2000)
    found = deviations(counts.astype(np.float32), baselines.astype(np.float32), [0])[:, 0]
    assert np.mean(found > limit(limits, 400)) >= 0.95


def test_the_function_judges_as_the_build_does(world):
    """The few lines of the function and the arrays of the build give the same deviations."""
    rng = np.random.default_rng(2)
    windows, baselines = world.counts(70, 20, rng), world.counts(300, 20, rng)
    ends = [*world.starts[1:], windows.shape[1]]
    found_by_arrays = deviations(windows, baselines, world.starts)
    for window, baseline, expected in zip(windows, baselines, found_by_arrays, strict=True):
        cuts = [slice(start, end) for start, end in zip(world.starts, ends, strict=True)]
        found = [deviation(window[cut].astype(int).tolist(), baseline[cut].astype(int).tolist()) for cut in cuts]
        assert found == pytest.approx(expected.tolist(), rel=1e-4, abs=1e-4)


def test_a_deviation_by_hand():
    """30 and 20 of 50 rows against 500 and 500: chi-square 1.905 by Pearson's table, one degree of freedom."""
    rows, expected = np.array([30.0, 20.0]), np.array([500.0, 500.0])
    share = (rows + expected) / 1050
    chi_square = (((rows - 50 * share) ** 2) / (50 * share)).sum() + (
        ((expected - 1000 * share) ** 2) / (1000 * share)
    ).sum()
    assert chi_square == pytest.approx(1.905, abs=1e-3)
    assert deviation([30, 20], [500, 500]) == pytest.approx((chi_square ** (1 / 3) - 7 / 9) / (2 / 9) ** 0.5)


def test_one_unseen_value_is_no_alarm():
    """A bin that the baseline has no row in: one row of 50 there is within chance, a tenth of them is not."""
    assert deviation([49, 1], [1000, 0]) < 2.3
    assert deviation([45, 5], [1000, 0]) > 4


def test_a_window_is_judged_by_its_worst_feature():
    """The score is the largest deviation, in units of the limit for so many rows."""
    features = [{"counts": [500, 500]}, {"counts": [900, 100]}]
    score, found = judge({"features": features, "limits": [[50, 3.0], [200, 2.0]]}, [[50, 50], [60, 40]])
    assert found[0] < 0 < found[1]
    assert score == pytest.approx(found[1] / 2.5)


def test_limits_hold_beyond_their_ends():
    """Windows smaller or larger than any that was drawn take the nearest one's."""
    limits = [[50, 3.0], [200, 2.0]]
    assert [limit(limits, rows) for rows in (10, 50, 100, 200, 9000)] == [3.0, 3.0, 2.5, 2.0, 2.0]
