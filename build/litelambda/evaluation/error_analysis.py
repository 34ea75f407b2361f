"""Error analysis: on which test rows, classes and values an artifact fails, for the report."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.data.dataset import Dataset
from litelambda.evaluation.calibration import calibration, coverage, probabilities, thresholds
from litelambda.evaluation.evaluate import Evaluated, FloatAnswers, confusion_matrix, predicted_classes

_RANGES = 5  # of a regression's targets, with as many rows each
_DRAWN = 400  # rows of a scatter plot
_MOST_THRESHOLDS = 50  # labels whose thresholds are found
_RANKS = (1, 3, 5, 10, 20, 50, 100)


def analyze(data: Dataset, trained: FloatAnswers, evaluated: Evaluated, from_logits: bool) -> dict[str, Any]:
    """Find out where an artifact fails on the test rows.

    Args:
        data: from the data stage.
        trained: the float model's answers.
        evaluated: the artifact's.
        from_logits: whether the outputs are logits.

    Returns:
        What there is of `classes` (precision, recall, F1, support by class), `confusion`, `calibration` of both models,
        `coverage`, `thresholds`, and `regression`.
    """
    outputs = evaluated.outputs
    if data.labels is None:
        return {"regression": [_regression(outputs[:, at], data.test.y[:, at]) for at in range(outputs.shape[1])]}
    if data.multi_label:
        return _labels(data, trained.outputs, outputs, from_logits)
    return _classes(data, trained.outputs, outputs, from_logits)


def class_figures(confusion: NDArray[Any]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of each class, from counts by class and predicted class.

    >>> class_figures(np.array([[3, 1], [0, 2]]))[1]
    {'support': 2, 'predicted': 3, 'precision': 0.666..., 'recall': 1.0, 'f1': 0.8}
    """
    hits, support, predicted = np.diag(confusion), confusion.sum(axis=1), confusion.sum(axis=0)
    return [
        _figures(int(hit), int(true), int(found)) for hit, true, found in zip(hits, support, predicted, strict=True)
    ]


def recall_by_rank(items: NDArray[Any], chosen: NDArray[Any]) -> list[dict[str, float]]:
    """Of recommendations, best first: how often the item that was chosen is among the first of them.

    >>> recall_by_rank(np.array([[7, 8, 9], [1, 2, 3]]), np.array([7, 3]))
    [{'rank': 1, 'recall': 0.5}, {'rank': 3, 'recall': 1.0}]
    """
    hits = items == chosen[:, None]
    return [
        {"rank": rank, "recall": float(hits[:, :rank].any(axis=1).mean())} for rank in _RANKS if rank <= len(hits.T)
    ]


def _figures(hits: int, support: int, predicted: int) -> dict[str, Any]:
    named = support + predicted
    return {
        "support": support,
        "predicted": predicted,
        "precision": hits / predicted if predicted else None,
        "recall": hits / support if support else None,
        "f1": 2 * hits / named if named else None,
    }


def _classes(data: Dataset, before: NDArray[Any], outputs: NDArray[Any], from_logits: bool) -> dict[str, Any]:
    confusion = confusion_matrix(outputs, data, from_logits)
    found: dict[str, Any] = {"confusion": confusion, "classes": class_figures(np.asarray(confusion))}
    for name, values in (("float", before), ("quantized", outputs)):
        likely = probabilities(values, from_logits, multi_label=False)
        if likely is not None:
            right = predicted_classes(values, from_logits) == data.test.y
            found.setdefault("calibration", {})[name] = calibration(likely.max(axis=1), right)
            if name == "quantized":
                found["coverage"] = coverage(likely.max(axis=1), right)
                if len(likely.T) == 2:
                    found["thresholds"] = [{"label": 1, **(thresholds(likely[:, 1], data.test.y == 1) or {})}]
    return found


def _labels(data: Dataset, before: NDArray[Any], outputs: NDArray[Any], from_logits: bool) -> dict[str, Any]:
    right = data.test.y > 0.5
    named = outputs > (0.0 if from_logits else 0.5)
    hits, support, predicted = ((named & right).sum(axis=0), right.sum(axis=0), named.sum(axis=0))
    found: dict[str, Any] = {
        "classes": [_figures(*map(int, each)) for each in zip(hits, support, predicted, strict=True)]
    }
    for name, values in (("float", before), ("quantized", outputs)):
        likely = probabilities(values, from_logits, multi_label=True)
        if likely is not None:
            found.setdefault("calibration", {})[name] = calibration(likely.ravel(), right.ravel())
            if name == "quantized":
                points = [
                    (label, thresholds(likely[:, label], right[:, label]))
                    for label in range(min(_MOST_THRESHOLDS, len(likely.T)))
                ]
                found["thresholds"] = [{"label": label, **each} for label, each in points if each]
    return found


def _regression(outputs: NDArray[Any], targets: NDArray[Any]) -> dict[str, Any]:
    """How far the answers of one output are from its targets, overall and by range of the target."""
    answers, true = outputs.astype(np.float64), targets.astype(np.float64)
    error = answers - true
    variance = float(np.mean((true - true.mean()) ** 2))
    parts = np.array_split(np.argsort(true, kind="stable"), min(_RANGES, len(true)))
    ranges = [
        {
            "from": float(true[part].min()),
            "to": float(true[part].max()),
            "count": len(part),
            "mae": float(np.abs(error[part]).mean()),
            "bias": float(error[part].mean()),
        }
        for part in parts
    ]
    drawn = np.linspace(0, len(true) - 1, min(_DRAWN, len(true))).astype(int)
    return {
        "r2": 1 - float(np.mean(error**2)) / variance if variance else None,
        "bias": float(error.mean()),
        "mae": float(np.abs(error).mean()),
        "quantiles": {str(share): float(np.quantile(np.abs(error), share)) for share in (0.5, 0.9, 0.99)},
        "ranges": ranges,
        "points": [[float(f"{true[at]:.6g}"), float(f"{answers[at]:.6g}")] for at in drawn],
    }
