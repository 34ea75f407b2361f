"""The loss by quantization: an int8 artifact against its source's answers, on rows that it was not calibrated with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import GateError
from litelambda.evaluation.comparison import value_range

MAX_DIFFERENCE = 0.1
"""Of an output's range: what 99 % of the values may differ by, unless the user says otherwise; 25 steps of int8."""
_LARGEST = 5  # times `max_difference`, for the largest: a few rows at a class boundary jump
_MIN_AGREEMENT = 0.9
_MAX_UNITS = 16  # values in a vector of unlike units; longer vectors are embeddings or classes
_OTHER_UNIT = 10  # ratio of two values' ranges from which on their units differ


@dataclass(frozen=True)
class Loss:
    """How far a quantized model is from its source.

    Attributes:
        max_difference: the largest difference, as a share of the range of the source's output.
        p99_difference: what 99 % of the values are within.
        max_abs_difference: the largest difference itself.
        agreement: share of the rows with the same largest value, over all outputs that look like classes, or that are
            the same, over those that are not real numbers; else None.
        lost_rows: share of the rows where it is another one, and not by a near tie.
        output: the output that is furthest off.
        num_examples: rows that were compared.
    """

    max_difference: float
    p99_difference: float
    max_abs_difference: float
    agreement: float | None
    lost_rows: float
    output: str
    num_examples: int

    def to_json(self) -> dict[str, Any]:
        """The manifest's figures of it."""
        return {
            "max_difference": self.max_difference,
            "p99_difference": self.p99_difference,
            "max_abs_difference": self.max_abs_difference,
            "agreement": self.agreement,
            "num_examples": self.num_examples,
        }


def measure_loss(expected: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> Loss:
    """Compare two models' answers, an entry per run, where the source's are numbers."""
    shares: dict[str, tuple[float, float, float]] = {}
    agreements, lost = [], []
    for name, answers in expected.items():
        if answers.dtype.kind not in "fc":  # whole numbers, truth values and strings: another one is another answer
            agreements.append(_equal_rows(answers, found[name]))
            lost.append(1 - agreements[-1])
            continue
        right = answers.astype(np.float64)
        values = found[name].reshape(right.shape).astype(np.float64)
        size, judged = value_range(right), np.isfinite(right)
        apart = np.abs(np.where(np.isfinite(values), values, np.inf) - np.where(judged, right, 0.0))
        if judged.any():
            share = (apart / _ranges(right, size))[judged]
            worst = float(apart[judged].max())
            shares[name] = float(share.max()), float(np.quantile(share, 0.99, method="higher")), worst
        if _looks_like_classes(right):
            same, near = _classes(right.reshape(-1, right.shape[-1]), values.reshape(-1, right.shape[-1]), size)
            agreements.append(float(same.mean()))
            lost.append(float((~same & ~near).mean()))
    output = max(shares, key=lambda each: shares[each][1], default=next(iter(expected)))
    return Loss(
        max_difference=max((share for share, _, _ in shares.values()), default=0.0),
        p99_difference=max((share for _, share, _ in shares.values()), default=0.0),
        max_abs_difference=max((worst for _, _, worst in shares.values()), default=0.0),
        agreement=min(agreements, default=None),
        lost_rows=max(lost, default=0.0),
        output=output,
        num_examples=len(next(iter(expected.values()))),
    )


def _equal_rows(right: NDArray[Any], found: NDArray[Any]) -> float:
    """Share of the rows, of all runs, that are equal."""
    count = math.prod(right.shape[:2])
    same: NDArray[Any] = right.reshape(count, -1) == found.reshape(count, -1)
    return float(same.all(axis=1).mean())


def _looks_like_classes(values: NDArray[Any]) -> bool:
    """(runs, batch, classes): one vector per row, of more than one value."""
    return values.ndim == 3 and values.shape[-1] > 1


def _ranges(values: NDArray[Any], pooled: float) -> float | NDArray[Any]:
    """The range of an output, or of each value of a short vector that mixes units: a price next to a probability."""
    if not _looks_like_classes(values) or values.shape[-1] > _MAX_UNITS:
        return pooled
    sizes = np.array([value_range(values[..., index]) for index in range(values.shape[-1])])
    return sizes if pooled > 1.0 and sizes.max() > _OTHER_UNIT * sizes.min() else pooled


def _classes(right: NDArray[Any], found: NDArray[Any], size: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows with the same class, and rows with a class that the source scores within two steps of int8 of its first."""
    theirs = np.argmax(np.nan_to_num(found, nan=-np.inf), axis=1)
    ours = np.argmax(np.nan_to_num(right, nan=-np.inf), axis=1)
    rows = np.arange(len(right))
    return ours == theirs, right[rows, ours] - right[rows, theirs] <= 2 * size / 255


def check_loss(loss: Loss, max_difference: float) -> None:
    """Refuse a quantized model that is too far from its source.

    Args:
        loss: from `measure_loss`.
        max_difference: what 99 % of the values may differ by, as a share of the range.

    Raises:
        GateError: it is further off, or names other classes; the message has the figures.
    """
    reasons = []
    if not loss.p99_difference <= max_difference:
        reasons.append(f"1 % of its values are off by {loss.p99_difference:.1%} of the range or more")
    if not loss.max_difference <= _LARGEST * max_difference:
        reasons.append(f"one is off by {loss.max_difference:.1%} of the range")
    if loss.lost_rows > 1 - _MIN_AGREEMENT:
        reasons.append(f"it names another class on {loss.lost_rows:.1%} of the rows")
    if reasons:
        raise GateError(
            f"the int8 model is too far from its source on {loss.num_examples} representative rows, output "
            f"{loss.output!r}: {', and '.join(reasons)} (allowed: {max_difference:.1%} for 99 % of the values, "
            f"{_LARGEST * max_difference:.1%} for any, another class on {1 - _MIN_AGREEMENT:.0%}). Nothing was "
            "published. Give more or more typical representative rows, import without them for float32, or accept it "
            "with --max-difference SHARE or --accept-loss, in a recipe import.max_difference or import.accept_loss"
        )
