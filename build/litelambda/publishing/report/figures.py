"""Numbers as people read them, and the words for a version's figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

SHARES = ("accuracy", "recall", "f1", "exact")
"""Figures that are shares of one."""
STAGES = ("float", "compressed", "quantized")
_GAP = 0.02  # of training accuracy above validation accuracy, beyond which the page says over-fitted


def percent(share: float | None, digits: int = 1) -> str:
    """A share as people read it.

    >>> percent(0.9786).split(), percent(None)
    (['97.9', '%'], '')
    """
    return "" if share is None else f"{100 * share:.{digits}f}\N{NO-BREAK SPACE}%"


def show_figure(name: str, value: float) -> str:
    """A figure of a model: shares in percent, others with four digits."""
    return percent(value, 2) if name in SHARES else number(value)


def number(value: float) -> str:
    """A number with four digits, or all that are before the point.

    >>> number(37184.2), number(0.0123456)
    ('37,184', '0.01235')
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def main_figure(metrics: Mapping[str, Any]) -> str:
    """The name of the figure that a model is judged by."""
    return next(name for name in ("accuracy", "recall", "mse") if name in metrics["quantized"])


def confidence_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was observed on `count` rows.

    >>> confidence_interval(0.9, 100)
    (0.8256..., 0.9447...)

    Source: Wilson 1927, "Probable inference".
    """
    z = 1.96
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, center - half), min(1.0, center + half)


def overfitting(history: Mapping[str, Sequence[float]]) -> str:
    """The gap between training and validation at the end, in a sentence."""
    if "val_loss" not in history:
        return "There were no validation rows to compare with."
    best = min(range(len(history["val_loss"])), key=history["val_loss"].__getitem__) + 1
    if "val_accuracy" not in history or "accuracy" not in history:
        return f"The validation loss was lowest in epoch {best} of {len(history['val_loss'])}."
    gap = history["accuracy"][-1] - history["val_accuracy"][-1]
    verdict = "over-fitted: try dropout, L2, augmentation or early stopping" if gap > _GAP else "no over-fitting to see"
    return (
        f"Training accuracy is {100 * gap:+.2f} points above validation at the end, the validation loss was lowest in "
        f"epoch {best} of {len(history['val_loss'])}: {verdict}."
    )


def name_of(labels: Sequence[str] | None, number: Any) -> str:
    """A class by name, several joined, or a value.

    >>> name_of(["no", "yes"], 1), name_of(["red", "round"], [0, 1]), name_of(None, [1.25])
    ('yes', 'red, round', '1.25')
    """
    if labels is None:
        values = number if isinstance(number, list) else [number]
        return ", ".join(f"{value:.5g}" for value in values)
    if isinstance(number, list):
        return ", ".join(labels[each] for each in number) or "none"
    return str(labels[number])
