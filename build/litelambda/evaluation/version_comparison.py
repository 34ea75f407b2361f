"""How the answers of two versions of a model differ on the same rows, and which of them is right more often.

Knows predictions as `litelambda score` writes them, and what a manifest says they stand for; not where they come from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Address = str | int
_SUM_TOLERANCE = 0.05


@dataclass(frozen=True)
class Meaning:
    """What the predictions of a version stand for.

    Attributes:
        task: "classification", "multi_label", "regression", "recommendation", or "" where it is not known.
        labels: names of the classes; None where there are none.
        from_logits: whether scores are logits.
    """

    task: str
    labels: list[str] | None
    from_logits: bool

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> Meaning:
        """From a manifest."""
        from_logits = fields.get("recipe", {}).get("train", {}).get("from_logits", False)
        return cls(fields.get("task", ""), fields.get("labels"), from_logits)

    def decide(self, prediction: Any) -> Any:
        """What a prediction decides: a class, a list of them, or the best item; None where it is only numbers.

        >>> Meaning("classification", ["no", "yes"], False).decide([0.2, 0.8])
        'yes'
        >>> Meaning("multi_label", ["red", "round"], False).decide([0.9, 0.1])
        ['red']
        >>> Meaning("regression", None, False).decide([3.5]) is None
        True
        """
        names = first_names(prediction)
        if names is not None:
            return names[0] if names else ""
        if self.task == "regression" or isinstance(prediction, dict):
            return None
        scores, middle = np.array(prediction, ndmin=1, dtype=float), 0.0 if self.from_logits else 0.5
        if scores.ndim != 1 or (self.labels is None and not self._looks_like_classes(scores)):
            return None
        if self.task == "multi_label":
            return [self.name(int(label)) for label in np.flatnonzero(scores > middle)]
        return self.name(int(scores[0] > middle) if len(scores) == 1 else int(scores.argmax()))

    def name(self, number: int) -> str:
        """The name of a class, or its number where it has none."""
        return self.labels[number] if self.labels else str(number)

    def _looks_like_classes(self, scores: NDArray[Any]) -> bool:
        return len(scores) > 1 and bool(scores.min() >= 0) and abs(float(scores.sum()) - 1) <= _SUM_TOLERANCE


def first_names(prediction: Any) -> list[str] | None:
    """The texts of the first output that has texts; None of a prediction that is only numbers."""
    outputs = prediction.values() if isinstance(prediction, dict) else [prediction]
    for output in outputs:
        if isinstance(output, list) and output and isinstance(output[0], str):
            return output
    return None


def largest_difference(first: Any, second: Any) -> float | None:
    """The largest difference between the numbers of two predictions; None where their shapes differ.

    >>> largest_difference({"a": [1.0, 2.0]}, {"a": [1.0, 2.5]}), largest_difference([1.0], [1.0, 2.0])
    (0.5, None)
    """
    if isinstance(first, dict) and isinstance(second, dict):
        pairs = [(first[name], second[name]) for name in first if name in second]
        found = [largest_difference(*pair) for pair in pairs if first_names(pair[0]) is None]
        return None if not found or None in found else max(each for each in found if each is not None)
    if isinstance(first, dict) or isinstance(second, dict):
        return None
    one, other = np.array(first, dtype=float), np.array(second, dtype=float)
    return float(np.abs(one - other).max(initial=0.0)) if one.shape == other.shape else None


@dataclass(frozen=True)
class Flip:
    """A row that two versions answer differently.

    Attributes:
        row: its address.
        first: what the first version answers.
        second: what the second does.
        true: the target; None where it is not known.
    """

    row: Address
    first: Any
    second: Any
    true: Any = None


@dataclass(frozen=True)
class Compared:
    """How two versions answer the same rows.

    Attributes:
        rows: rows that both answered.
        agreement: share of them that both answer the same; None where answers are only numbers.
        flips: the others.
        differences: the rows with the largest difference between two numbers, largest first: (address, difference).
        metrics: by version, its figures on rows with targets; empty without targets.
        only_right: rows that only the first version, and only the second, answers rightly; None without targets.
    """

    rows: int
    agreement: float | None
    flips: list[Flip]
    differences: list[tuple[Address, float]]
    metrics: list[dict[str, float]]
    only_right: tuple[int, int] | None

    @property
    def p_value(self) -> float | None:
        """How likely so unequal a split of the rows that only one answers rightly is by chance.

        Source: McNemar's test, exact: binomial with a half, two-sided.
        """
        return None if self.only_right is None else sign_test(*self.only_right)


def sign_test(first: int, second: int) -> float:
    """The two-sided probability of a split at least as unequal, where both sides are equally likely.

    >>> sign_test(1, 9)
    0.021484375
    """
    total = first + second
    tail = sum(math.comb(total, count) for count in range(min(first, second) + 1))
    return min(1.0, float(2 * tail / 2**total))


def compare_answers(
    predictions: tuple[Mapping[Address, Any], Mapping[Address, Any]],
    meanings: tuple[Meaning, Meaning],
    targets: Mapping[Address, Any],
    most: int,
) -> Compared:
    """Compare the predictions of two versions.

    Args:
        predictions: by address of the row, of each version.
        meanings: what they stand for.
        targets: by address; empty where they are not known.
        most: how many of the largest differences are kept.
    """
    rows = [row for row in predictions[0] if row in predictions[1]]
    decided = [
        [meaning.decide(found[row]) for row in rows] for found, meaning in zip(predictions, meanings, strict=True)
    ]
    flips = [
        Flip(row, first, second, targets.get(row))
        for row, first, second in zip(rows, *decided, strict=True)
        if first != second
    ]
    apart = [(row, largest_difference(predictions[0][row], predictions[1][row])) for row in rows]
    differences = sorted(((row, each) for row, each in apart if each), key=lambda pair: -pair[1])
    decides = any(each is not None for each in decided[0] + decided[1])
    known = [at for at, row in enumerate(rows) if targets.get(row) is not None]
    metrics: list[dict[str, float]] = []
    only_right = None
    if known and decides:
        right = [np.array([answers[at] == targets[rows[at]] for at in known]) for answers in decided]
        metrics = [{"accuracy": float(each.mean())} for each in right]
        only_right = int((right[0] & ~right[1]).sum()), int((right[1] & ~right[0]).sum())
    elif known:
        true = [targets[rows[at]] for at in known]
        metrics = [_errors([found[rows[at]] for at in known], true) for found in predictions]
    agreement = 1 - len(flips) / len(rows) if decides and rows else None
    return Compared(len(rows), agreement, flips, differences[:most], metrics, only_right)


def _errors(found: Sequence[Any], targets: Sequence[Any]) -> dict[str, float]:
    error = np.array(found, dtype=float).reshape(len(found), -1) - np.array(targets).reshape(len(found), -1)
    return {"mse": float(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}
