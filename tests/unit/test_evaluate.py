"""Evaluate: the figures of both models, and the gate."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.errors import GateError
from litelambda.sections import Gate
from litelambda.stages.data import Dataset
from litelambda.stages.evaluate import Evaluated, check_gate, measure, predicted_classes
from litelambda.stages.sources import Split


def evaluated(before: dict[str, float], after: dict[str, float]) -> Evaluated:
    """An evaluation with these figures of the float and the quantized model."""
    return Evaluated(before, None, after, None, 0.0, 100)


def dataset(y: Any, labels: list[str] | None) -> Dataset:
    """A data set of which only the test split's targets matter."""
    split = Split(np.zeros((len(y), 1), np.float32), np.asarray(y))
    return Dataset(split, None, split, labels, len(labels or "x"), None)


@pytest.mark.parametrize(
    ("outputs", "from_logits", "classes"),
    [
        ([[0.1, 0.7, 0.2], [0.5, 0.2, 0.3]], False, [1, 0]),
        ([[0.4], [0.6]], False, [0, 1]),
        ([[-0.1], [0.3]], True, [0, 1]),
    ],
)
def test_outputs_stand_for_classes(outputs: Any, from_logits: bool, classes: list[int]) -> None:
    """The largest of several outputs is the class; a single one is class 1 above its middle."""
    assert predicted_classes(np.array(outputs), from_logits).tolist() == classes


def test_classifiers_are_measured_by_accuracy() -> None:
    """The share of test rows whose class is right."""
    data = dataset([0, 1, 1, 0], ["a", "b"])
    assert measure(np.array([[0.9, 0.1], [0.2, 0.8], [0.7, 0.3], [0.6, 0.4]]), data, from_logits=False) == {
        "accuracy": 0.75
    }


def test_regression_is_measured_by_its_errors() -> None:
    """Mean squared and mean absolute error over the test rows."""
    data = dataset([[1.0], [3.0]], None)
    assert measure(np.array([[2.0], [0.0]]), data, from_logits=False) == {"mse": 5.0, "mae": 2.0}


@pytest.mark.parametrize(("before", "after"), [(0.97, 0.966), (0.97, 0.99), (0.9, 0.9)])
def test_a_small_loss_of_accuracy_passes(before: float, after: float) -> None:
    """The default gate lets half a percentage point go."""
    check_gate(Gate(), evaluated({"accuracy": before}, {"accuracy": after}))


def test_a_large_loss_of_accuracy_is_refused_with_its_numbers() -> None:
    """The message has both accuracies, the drop and what was allowed."""
    with pytest.raises(GateError) as caught:
        check_gate(Gate(), evaluated({"accuracy": 0.97}, {"accuracy": 0.96}))
    assert caught.value.exit_code == 1
    for part in ("fell by 0.0100", "0.9700 (float)", "0.9600 (quantized)", "0.005", "Nothing was published"):
        assert part in str(caught.value)


@pytest.mark.parametrize(("before", "after", "passes"), [(2.0, 2.09, True), (2.0, 2.11, False), (0.0, 1e-9, False)])
def test_regression_is_gated_by_the_relative_growth_of_its_error(before: float, after: float, passes: bool) -> None:
    """gate.max_mse_increase is a share of the float model's mean squared error."""
    figures = evaluated({"mse": before, "mae": 1.0}, {"mse": after, "mae": 1.0})
    if passes:
        check_gate(Gate(), figures)
        return
    with pytest.raises(GateError, match=r"mean squared error rose by .*max_mse_increase allows 5\.0%"):
        check_gate(Gate(), figures)
