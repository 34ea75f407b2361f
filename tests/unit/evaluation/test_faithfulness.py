"""Curves and checks of explanations, on functions whose right explanation is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.conversion.gradient_graph import PathGradients
from litelambda.evaluation.faithfulness import deletion_and_insertion, rank_correlation, with_shuffled_weights
from litelambda.keras_tools.backend import load_tensorflow

_NOISE = np.random.default_rng(0)


def test_the_right_order_has_the_best_areas() -> None:
    """What a linear function goes by gives a smaller area of deletion and a larger one of insertion than any other."""
    rows, weights = _NOISE.random((6, 3, 4)), _NOISE.random((3, 4))

    def predict(values: np.ndarray) -> np.ndarray:
        found: np.ndarray = (values * weights).sum((1, 2))
        return found

    right = deletion_and_insertion(predict, rows, np.zeros((3, 4)), rows * weights, steps=12)
    others = [
        deletion_and_insertion(predict, rows, np.zeros((3, 4)), other, steps=12)
        for other in (-rows * weights, _NOISE.random(rows.shape))
    ]
    assert all(right.deletion_area < other.deletion_area for other in others)
    assert all(right.insertion_area > other.insertion_area for other in others)
    assert right.deletion[0] == right.insertion[-1] == pytest.approx(predict(rows).mean())
    assert right.deletion[-1] == right.insertion[0] == 0
    assert right.shares == pytest.approx(np.arange(13) / 12)


def test_rank_correlation_is_spearmans() -> None:
    """By hand, of sizes without signs: values that are equal share their ranks, and a constant says nothing."""
    assert rank_correlation(np.array([1, -2, 2, 4]), np.array([8, 6, -5, 1])) == pytest.approx(-4.5 / 22.5**0.5)
    assert rank_correlation(np.array([[1, 2], [3, 4]]), np.array([[0, 10], [20, 30]])) == 1
    assert rank_correlation(np.array([1, 2]), np.array([3, 3])) == 0


def test_shuffled_weights_change_explanations(tiny_model: Any) -> None:
    """The same weights in another order give other attributions, while the model itself stays as it was."""
    tf, before = load_tensorflow(), tiny_model.get_weights()
    shuffled = with_shuffled_weights(tiny_model)
    for kept, changed in zip(before, shuffled.get_weights(), strict=True):
        np.testing.assert_array_equal(np.sort(kept, axis=None), np.sort(changed, axis=None))
    rows = _NOISE.random((12, 4), dtype=np.float32)
    found = []
    for model in (tiny_model, shuffled):
        explain = tf.function(PathGradients(model).over(16), autograph=False)
        asked = [tf.constant(each) for each in (np.zeros((1, 4)), [[0, 1]], [[1, 0, 0]])]
        baseline, span, target = (tf.cast(each, "float32") for each in asked)
        found.append(np.stack([explain(row[None], baseline, span, target)["attributions_0"].numpy() for row in rows]))
    assert rank_correlation(*found) < 0.8
    np.testing.assert_array_equal(tiny_model.get_weights()[0], before[0])
