"""The check of a model's explanations, on a model whose right explanation is arithmetic."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.conversion.gradients import Samples
from litelambda.evaluation import explanation_check
from litelambda.evaluation.explanation_check import check_explanations
from litelambda.keras_tools.backend import load_keras
from litelambda.publishing.report.trust import explanations

WEIGHTS = np.array([8.0, -4.0, 2.0, 1.0, 0.5, -0.25, 16.0, 0.125], np.float32)
ROWS = np.random.default_rng(0).permuted(np.tile(np.arange(1, 9, dtype=np.float32), (6, 1)), axis=1)


@pytest.fixture(scope="module")
def model() -> Any:
    """Y = w x."""
    keras = load_keras()
    made = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(1, use_bias=False)])
    made.layers[0].set_weights([WEIGHTS[:, None]])
    return made


def test_the_curves_of_a_linear_model(model: Any) -> None:
    """The values go in the order of weight times value, which is what they are worth: by numpy, to a rounding."""
    found = check_explanations(model, Samples({"x": ROWS}))
    worth = np.sort(ROWS * WEIGHTS, axis=1)[:, ::-1]
    counts = np.round(np.linspace(0, 1, 21) * 8).astype(int)
    gone = [float(worth[:, :count].sum(1).mean()) for count in counts]
    assert found["curves"]["insertion"] == pytest.approx(gone, abs=1e-3)
    assert found["curves"]["deletion"] == pytest.approx([gone[-1] - value for value in gone], abs=1e-3)
    assert found["areas"]["deletion"] < found["random_areas"]["deletion"]
    assert found["areas"]["insertion"] > found["random_areas"]["insertion"]
    assert found["rows"] == 6
    assert abs(found["shuffled_correlation"]) < 0.9
    assert "correlate with these by" in explanations({"explanations": found})


def test_places_where_nothing_differs_are_no_agreement(model: Any) -> None:
    """Black pixels around a digit have no attribution under any weights: the correlation is that of the others."""
    rows = ROWS * (np.arange(8) < 4)
    few = check_explanations(model, Samples({"x": rows}))["shuffled_correlation"]
    copy = explanation_check.with_shuffled_weights(model, 0).get_weights()[0].ravel()
    by_hand = [explanation_check.rank_correlation((row * WEIGHTS)[:4], (row * copy)[:4]) for row in rows]
    assert few == pytest.approx(np.mean(by_hand), abs=1e-6)


def test_explanations_that_do_not_see_the_model_are_found_out(model: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is the same for shuffled weights correlates by 1; a random order has the random curves' areas."""
    monkeypatch.setattr(
        explanation_check, "_attributions", lambda _paths, rows: np.concatenate([row.values for row in rows])
    )
    found = check_explanations(model, Samples({"x": ROWS}))
    assert found["shuffled_correlation"] == 1


def test_a_model_that_cannot_be_checked_says_why() -> None:
    """The report has the reason in the curve's place."""
    assert "not checked: no copy" in explanations({"explanations": {"left_out": "no copy"}})
    assert explanations({}) == ""
