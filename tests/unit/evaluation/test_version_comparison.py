"""How two versions' answers differ, by hand."""

from __future__ import annotations

from typing import Any

import pytest

from litelambda.evaluation.version_comparison import Flip, Meaning, compare_answers, largest_difference, sign_test

CLASSES = Meaning("classification", ["no", "yes"], False)


@pytest.mark.parametrize(
    ("meaning", "prediction", "decided"),
    [
        (CLASSES, [0.4, 0.6], "yes"),
        (CLASSES, [0.4], "no"),
        (CLASSES, 0.6, "yes"),
        (Meaning("classification", ["no", "yes"], True), [0.4], "yes"),
        (Meaning("multi_label", ["red", "round"], False), [0.6, 0.7], ["red", "round"]),
        (Meaning("multi_label", ["red", "round"], True), [0.1, -0.1], ["red"]),
        (Meaning("", None, False), [0.1, 0.9], "1"),
        (Meaning("", None, False), [3.5, 9.0], None),
        (Meaning("regression", None, False), [0.1, 0.9], None),
        (Meaning("recommendation", None, False), {"items": ["b", "a"], "scores": [2.0, 1.0]}, "b"),
        (Meaning("", None, False), {"a": [0.5], "b": [0.5]}, None),
        (CLASSES, [[0.1, 0.9], [0.2, 0.8]], None),
    ],
)
def test_predictions_stand_for_answers(meaning: Meaning, prediction: Any, decided: Any) -> None:
    """Classes by name where they have names, items by name, and nothing where there are only numbers."""
    assert meaning.decide(prediction) == decided


def test_flips_and_figures_are_those_of_the_rows_that_both_answer() -> None:
    """A row that one version refuses is left out; rows without a target have no part in the accuracy."""
    first = {1: [0.9, 0.1], 2: [0.4, 0.6], 3: [0.2, 0.8], 4: [0.7, 0.3], 9: [0.5, 0.5]}
    second = {1: [0.8, 0.2], 2: [0.6, 0.4], 3: [0.2, 0.8], 4: [0.1, 0.9]}
    found = compare_answers((first, second), (CLASSES, CLASSES), {1: "no", 2: "no", 3: "yes"}, most=2)
    assert found.rows == 4
    assert found.agreement == 0.5
    assert found.flips == [Flip(2, "yes", "no", "no"), Flip(4, "no", "yes", None)]
    assert found.differences == [(4, pytest.approx(0.6)), (2, pytest.approx(0.2))]
    assert found.metrics == [{"accuracy": pytest.approx(2 / 3)}, {"accuracy": 1.0}]
    assert found.only_right == (0, 1)
    assert found.p_value == 1.0


def test_numbers_are_compared_by_their_errors() -> None:
    """A regression has no flips; its figures are mse and mae."""
    meaning = Meaning("regression", None, False)
    found = compare_answers(({1: [1.0], 2: [2.0]}, {1: [1.5], 2: [4.0]}), (meaning, meaning), {1: [1.0], 2: [3.0]}, 5)
    assert (found.agreement, found.flips, found.p_value) == (None, [], None)
    assert found.metrics == [{"mse": 0.5, "mae": 0.5}, {"mse": 0.625, "mae": 0.75}]
    assert found.differences == [(2, 2.0), (1, 0.5)]


def test_versions_with_other_classes_are_compared_by_name() -> None:
    """The same class at another place is the same answer, and scores of other shapes have no difference."""
    other = Meaning("classification", ["yes", "no", "perhaps"], False)
    found = compare_answers(({1: [0.1, 0.9]}, {1: [0.8, 0.1, 0.1]}), (CLASSES, other), {}, 5)
    assert (found.agreement, found.differences, found.metrics) == (1.0, [], [])


@pytest.mark.parametrize(
    ("first", "second", "difference"),
    [
        ({"items": ["a"], "scores": [1.0]}, {"items": ["b"], "scores": [1.25]}, 0.25),
        ([1.0], [1.0, 2.0], None),
        ({"a": [1.0]}, [1.0], None),
        ({"a": [1.0]}, {"b": [1.0]}, None),
        (2.0, 3.0, 1.0),
    ],
)
def test_differences_are_between_numbers_of_one_shape(first: Any, second: Any, difference: float | None) -> None:
    """Names have no difference, nor have outputs of other names or shapes."""
    assert largest_difference(first, second) == difference


@pytest.mark.parametrize(
    ("first", "second", "p_value"), [(0, 0, 1.0), (5, 5, 1.0), (9, 1, 0.021484375), (0, 6, 0.03125)]
)
def test_chance_is_that_of_the_binomial_test(first: int, second: int, p_value: float) -> None:
    """As `scipy.stats.binomtest(first, first + second)` has it."""
    assert sign_test(first, second) == pytest.approx(p_value)
