"""Calibration: whether a model's probabilities are as often right as they say, and where to set a threshold.

Knows probabilities and truth as arrays, not where they come from.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 10
_SUM_TOLERANCE = 0.05  # an int8 softmax has steps of 1/256 per class
_RECALLS = (0.9, 0.95, 0.99)
_CONFIDENCES = (0.5, 0.7, 0.8, 0.9, 0.95, 0.99)


def probabilities(outputs: NDArray[Any], from_logits: bool, *, multi_label: bool) -> NDArray[np.float64] | None:
    """The probability of each class, (rows, classes); None where the outputs are not probabilities.

    Args:
        outputs: (rows, classes), or (rows, 1) with the probability, or logit, of class 1 of two.
        from_logits: whether they are logits.
        multi_label: whether a row can have any number of the classes.

    >>> probabilities(np.array([[0.2], [0.9]]), from_logits=False, multi_label=False).round(1).tolist()
    [[0.8, 0.2], [0.1, 0.9]]
    >>> probabilities(np.array([[3.0, -1.0]]), from_logits=False, multi_label=False) is None
    True
    """
    values = outputs.astype(np.float64)
    is_single = values.shape[1] == 1 and not multi_label
    if from_logits and (is_single or multi_label):
        values = 1 / (1 + np.exp(-np.clip(values, -500, 500)))
    elif from_logits:
        values = np.exp(values - values.max(axis=1, keepdims=True))
        values /= values.sum(axis=1, keepdims=True)
    if is_single:
        values = np.concatenate([1 - values, values], axis=1)
    if values.min() < 0 or values.max() > 1:
        return None
    if not multi_label and np.abs(values.sum(axis=1) - 1).max() > _SUM_TOLERANCE:
        return None
    return values


def calibration(confidence: NDArray[Any], right: NDArray[Any]) -> dict[str, Any]:
    """How often answers of a confidence are right.

    Args:
        confidence: in [0, 1], one for each answer.
        right: whether each answer is right.

    Returns:
        `ece`, the expected calibration error: the difference between confidence and share of right answers, averaged
        over the answers; and the `bins` of equal width that have answers, each with its `count`, mean `confidence` and
        the share that is `right`.

    Source: Guo et al. 2017, "On calibration of modern neural networks", eq. 3.
    """
    places = np.searchsorted(np.linspace(0, 1, BINS + 1)[1:-1], confidence)
    counts = np.bincount(places, minlength=BINS)
    used = np.flatnonzero(counts)
    mean = np.bincount(places, confidence, BINS)[used] / counts[used]
    share = np.bincount(places, right, BINS)[used] / counts[used]
    bins = [
        {"count": int(count), "confidence": float(said), "right": float(was)}
        for count, said, was in zip(counts[used], mean, share, strict=True)
    ]
    return {"ece": float(np.sum(counts[used] * np.abs(mean - share)) / len(confidence)), "bins": bins}


def thresholds(scores: NDArray[Any], positive: NDArray[Any]) -> dict[str, Any] | None:
    """Where to set the threshold of a class: scores at or above it count as that class.

    Args:
        scores: one for each row.
        positive: whether each row is of the class.

    Returns:
        The `best_f1` point, the point at 0.5 (`default`), and `at_recall`: for some recalls the point of the highest
        precision that reaches them. A point has `threshold, precision, recall, f1`. None where no row, or every
        row, is of the class.
    """
    if positive.all() or not positive.any():
        return None
    points = _points(scores, positive)
    f1 = points["f1"]
    at_recall = []
    for recall in _RECALLS:
        reaching = np.flatnonzero(points["recall"] >= recall)
        best = reaching[np.argmax(points["precision"][reaching])]
        at_recall.append({"at_least": recall, **_point(points, best)})
    found = scores >= 0.5
    hits = int((found & positive).sum())
    precision, recall = hits / max(int(found.sum()), 1), hits / int(positive.sum())
    return {
        "best_f1": _point(points, int(np.argmax(f1))),
        "default": {"threshold": 0.5, "precision": precision, "recall": recall, "f1": _f1(precision, recall)},
        "at_recall": at_recall,
    }


def coverage(confidence: NDArray[Any], right: NDArray[Any]) -> list[dict[str, float]]:
    """What is left, and how much of it is right, where answers below a confidence are not used."""
    found = []
    for threshold in _CONFIDENCES:
        used = confidence >= threshold
        if used.any():
            found.append({"threshold": threshold, "answered": float(used.mean()), "right": float(np.mean(right[used]))})
    return found


def _points(scores: NDArray[Any], positive: NDArray[Any]) -> dict[str, NDArray[np.float64]]:
    """Precision, recall and F1 at each threshold that tells rows apart, from the highest to the lowest.

    Thresholds lie in the middle between two scores: rounding a score does not move it to the other side.
    """
    order = np.argsort(-scores, kind="stable")
    ordered, hits = scores[order].astype(np.float64), np.cumsum(positive[order])
    last = np.append(np.flatnonzero(np.diff(ordered)), len(ordered) - 1)  # the last row of each score
    below = np.append(ordered[last[:-1] + 1], 0.0)
    precision, recall = hits[last] / (last + 1), hits[last] / hits[-1]
    f1 = np.divide(2 * precision * recall, precision + recall, out=np.zeros_like(recall), where=hits[last] > 0)
    return {"threshold": (ordered[last] + below) / 2, "precision": precision, "recall": recall, "f1": f1}


def _point(points: dict[str, NDArray[np.float64]], at: int) -> dict[str, float]:
    return {name: float(values[at]) for name, values in points.items()}


def _f1(precision: float, recall: float) -> float:
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0
