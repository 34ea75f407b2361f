"""Calibration and thresholds, against scikit-learn 1.9.1's figures for the same scores."""

from __future__ import annotations

import numpy as np
import pytest

from litelambda.evaluation.calibration import calibration, coverage, probabilities, thresholds

SCORES = np.array([0.05, 0.15, 0.22, 0.31, 0.35, 0.42, 0.48, 0.55, 0.61, 0.66, 0.74, 0.83, 0.91, 0.97])
POSITIVE = np.array([0, 0, 1, 0, 0, 1, 0, 1, 0, 1, 1, 0, 1, 1], bool)


def test_the_curve_is_scikit_learns() -> None:
    """Bins with no answers are left out; the error weighs each bin with its answers."""
    found = calibration(SCORES, POSITIVE)
    # sklearn.calibration.calibration_curve(POSITIVE, SCORES, n_bins=10)
    assert [each["right"] for each in found["bins"]] == [0, 0, 1, 0, 0.5, 1, 0.5, 1, 0, 1]
    expected = [0.05, 0.15, 0.22, 0.33, 0.45, 0.55, 0.635, 0.74, 0.83, 0.94]
    assert [each["confidence"] for each in found["bins"]] == pytest.approx(expected)
    assert [each["count"] for each in found["bins"]] == [1, 1, 1, 2, 2, 1, 2, 1, 1, 2]
    assert found["ece"] == pytest.approx(0.2621428571428571)


def test_thresholds_are_scikit_learns() -> None:
    """The best F1 and the best precision at a recall, as `precision_recall_curve` has them."""
    found = thresholds(SCORES, POSITIVE)
    assert found is not None
    best = found["best_f1"]
    assert (best["f1"], best["precision"], best["recall"]) == pytest.approx((0.75, 2 / 3, 6 / 7))
    assert 0.35 < best["threshold"] < 0.42  # sklearn's is 0.42, the lowest score that counts
    for point in found["at_recall"]:
        assert (point["precision"], point["recall"]) == pytest.approx((7 / 12, 1.0))
        assert 0.15 < point["threshold"] < 0.22
    assert found["default"] == pytest.approx({"threshold": 0.5, "precision": 5 / 7, "recall": 5 / 7, "f1": 5 / 7})


def test_a_threshold_needs_rows_on_both_sides() -> None:
    """There is nothing to choose where every row is of the class, or none is."""
    assert thresholds(SCORES, np.zeros(len(SCORES), bool)) is None
    assert thresholds(SCORES, np.ones(len(SCORES), bool)) is None


def test_equal_scores_are_on_the_same_side() -> None:
    """A model that gives all rows one score has one threshold, which lets all of them through."""
    found = thresholds(np.full(4, 0.5), np.array([True, False, False, False]))
    assert found is not None
    assert (found["best_f1"]["precision"], found["best_f1"]["recall"]) == (0.25, 1.0)


def test_coverage_is_counted_by_hand() -> None:
    """Of the answers that are sure enough, how many there are and how many are right."""
    found = coverage(np.array([0.6, 0.75, 0.92, 0.97]), np.array([False, True, False, True]))
    by_threshold = {each["threshold"]: (each["answered"], each["right"]) for each in found}
    assert by_threshold == {
        0.5: (1.0, 0.5),
        0.7: (0.75, pytest.approx(2 / 3)),
        0.8: (0.5, 0.5),
        0.9: (0.5, 0.5),
        0.95: (0.25, 1.0),
    }


@pytest.mark.parametrize(
    ("outputs", "from_logits", "multi_label", "expected"),
    [
        ([[0.0, 0.0]], True, False, [[0.5, 0.5]]),
        ([[1000.0, 0.0]], True, False, [[1.0, 0.0]]),
        ([[0.0]], True, False, [[0.5, 0.5]]),
        ([[0.0, -2000.0]], True, True, [[0.5, 0.0]]),
        ([[0.25, 0.25]], False, True, [[0.25, 0.25]]),
        ([[0.25, 0.25]], False, False, None),
        ([[-0.5, 1.5]], False, False, None),
    ],
)
def test_only_probabilities_are_taken_for_such(outputs, from_logits, multi_label, expected) -> None:
    """Logits become probabilities; scores that do not add up to 1 are none."""
    found = probabilities(np.array(outputs), from_logits, multi_label=multi_label)
    assert (None if found is None else found.tolist()) == (expected and [pytest.approx(row) for row in expected])
