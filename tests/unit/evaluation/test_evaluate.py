"""Evaluate: the figures of both models, and the gate."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest

from litelambda.common.errors import GateError
from litelambda.data.dataset import Dataset
from litelambda.data.readers import Split
from litelambda.data.scaling import Preprocessing
from litelambda.evaluation.evaluate import (
    Evaluated,
    confusion_matrix,
    measure,
    predicted_classes,
    relative_difference,
    trivial_metrics,
)
from litelambda.evaluation.gate import check_gate, hints
from litelambda.recipe.sections import Gate


def evaluated(before: dict[str, float], after: dict[str, float]) -> Evaluated:
    """An evaluation with these figures of the float and the quantized model, both better than a trivial one."""
    trivial = {"accuracy": 0.1} if "accuracy" in before else {"mse": 10.0, "mae": 2.0}
    return Evaluated(before, None, after, trivial, None, 0.0, 0.0, 100)


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


def test_labels_are_measured_one_by_one_and_together() -> None:
    """Of several labels a row: right ones over rows and labels, F1 over all, and rows with every label right."""
    data = dataset([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]], ["a", "b"])
    outputs = np.array([[0.9, 0.2], [0.6, 0.4], [0.1, 0.7], [0.8, 0.1]])
    # a: 3 of 3 found; b: the only one is missed, another is made up.
    figures = {"accuracy": 6 / 8, "f1": 2 * 3 / (2 * 3 + 1 + 1), "exact": 0.5}
    assert measure(outputs, data, from_logits=False) == figures
    logits = np.log(outputs / (1 - outputs))
    assert measure(logits, data, from_logits=True) == figures
    assert trivial_metrics(data) == {"accuracy": 6 / 8, "f1": 2 * 3 / (2 * 3 + 1 + 1), "exact": 0.5}
    assert confusion_matrix(outputs, data, from_logits=False) is None


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


NAN = float("nan")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"accuracy": 0.9}, {"accuracy": NAN}),
        ({"accuracy": NAN}, {"accuracy": 0.9}),
        ({"mse": 1.0, "mae": 1.0}, {"mse": NAN, "mae": NAN}),
        ({"mse": NAN, "mae": NAN}, {"mse": 1.0, "mae": 1.0}),
    ],
)
def test_figures_that_are_no_numbers_pass_no_gate(before: dict[str, float], after: dict[str, float]) -> None:
    """NaN compares as false with everything: it must not count as small enough."""
    with pytest.raises(GateError):
        check_gate(Gate(), evaluated(before, after))


@pytest.mark.parametrize(("difference", "passes"), [(0.25, True), (0.26, False), (float("inf"), False), (NAN, False)])
def test_answers_that_differ_too_much_are_refused(difference: float, passes: bool) -> None:
    """A metric may be as good while every answer is another one: the gate looks at the answers too."""
    figures = dataclasses.replace(evaluated({"mse": 1.0, "mae": 1.0}, {"mse": 0.9, "mae": 0.9}), difference=difference)
    if passes:
        check_gate(Gate(), figures)
        return
    with pytest.raises(GateError, match=r"gate\.max_difference allows 0\.25.*Nothing was published"):
        check_gate(Gate(), figures)
    check_gate(Gate(max_difference=1e9), dataclasses.replace(figures, difference=1.0))


@pytest.mark.parametrize(
    ("after", "message"),
    [
        ({"accuracy": 0.1}, r"most frequent class: accuracy 0\.1, against 0\.1"),
        ({"mse": 10.0, "mae": 1.0}, r"the mean: mse 10, against 10"),
    ],
)
def test_an_artifact_that_is_worth_nothing_is_refused(after: dict[str, float], message: str) -> None:
    """Within what the gate lets it lose, it must stay better than an answer that looks at no row."""
    generous = {"max_accuracy_drop": 1.0, "max_mse_increase": 100.0}
    before = dict.fromkeys(after, 0.5)
    with pytest.raises(GateError, match=message):
        check_gate(Gate(**generous), evaluated(before, after))
    check_gate(Gate(**generous, allow_trivial=True), evaluated(before, after))


def test_the_trivial_answer_comes_from_the_training_rows() -> None:
    """The class that is most frequent in them, not in the test rows; the mean of their targets, in their own units."""
    rows = np.zeros((4, 1), np.float32)
    classes = Dataset(
        Split(rows, np.array([1, 1, 0, 1])), None, Split(rows, np.array([0, 0, 0, 1])), ["a", "b"], 2, None
    )
    assert trivial_metrics(classes) == {"accuracy": 0.25}
    targets, scaling = np.array([[10.0], [30.0]], np.float32), Preprocessing([0.1], [-2.0])
    values = Dataset(
        Split(rows[:2], scaling.apply(targets)),
        None,
        Split(rows[:2], np.array([[21.0], [17.0]])),
        None,
        1,
        None,
        scaling,
    )
    assert trivial_metrics(values) == {"mse": pytest.approx(5.0), "mae": pytest.approx(2.0)}


def test_differences_are_shares_of_the_range() -> None:
    """By hand: outputs from 0 to 10 that are all off by 4 have a difference of 0.4; one row of 200 is let go."""
    before = np.linspace(0, 10, 200)[:, np.newaxis]
    assert relative_difference(before, before + 4, per_output=True) == pytest.approx(0.4)
    after = before.copy()
    after[7] += 1e6
    assert relative_difference(before, after, per_output=True) == 0
    after[9:12] += 1e6
    assert relative_difference(before, after, per_output=True) == pytest.approx(1e5)


def test_outputs_of_different_units_have_ranges_of_their_own() -> None:
    """An output of thousands does not hide what becomes of one of hundredths; an output that never varies is exact."""
    before = np.column_stack([np.linspace(0, 5000, 100), np.linspace(0, 0.01, 100)])
    after = before + np.array([0, 0.005])
    assert relative_difference(before, after, per_output=True) == pytest.approx(0.5)
    assert relative_difference(before, after, per_output=False) == pytest.approx(1e-6)
    constant = np.ones((100, 1))
    assert relative_difference(constant, constant, per_output=True) == 0
    assert relative_difference(constant, constant + 1e-9, per_output=True) == float("inf")


def test_numbers_that_were_taken_for_classes_are_hinted_at() -> None:
    """As many classes as rows are most likely a quantity: the hint names the key to set."""
    split = Split(np.zeros((20, 1), np.float32), np.arange(20))
    data = Dataset(split, None, split, [str(number) for number in range(20)], 20, None)
    (hint,) = hints(data, np.eye(20, dtype=int).tolist())
    assert "20 classes in 20 training rows" in hint
    assert "data.task = 'regression'" in hint


def test_classes_that_are_never_predicted_are_hinted_at() -> None:
    """A class with test rows that is the answer to none of them is named, one without test rows is not."""
    split = Split(np.zeros((100, 1), np.float32), np.arange(100) % 2)
    data = Dataset(split, None, split, ["no", "yes", "perhaps"], 3, None)
    (hint,) = hints(data, [[50, 0, 0], [50, 0, 0], [0, 0, 0]])
    assert "Never predicted: 'yes', the class of 50 of 100 test rows" in hint
    assert hints(data, [[49, 1, 0], [0, 50, 0], [0, 0, 0]]) == []
    assert hints(dataset([[1.0]], None), None) == []
