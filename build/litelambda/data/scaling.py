"""Normalization: model value = raw value x scale + offset, by numbers computed from the training rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.data.stored_rows import Rows, chunks
from litelambda.recipe.sections import Scaling

__all__ = ["Preprocessing", "fit_scaling"]


@dataclass(frozen=True)
class Preprocessing:
    """How rows are normalized: model value = raw value x scale + offset, per column where these are lists.

    Example:
        >>> Preprocessing(scale=0.5, offset=1.0).apply(np.array([0, 4])).tolist()
        [1.0, 3.0]
        >>> Preprocessing(scale=0.5, offset=1.0).undo(np.array([1.0, 3.0])).tolist()
        [0.0, 4.0]
    """

    scale: float | list[float]
    offset: float | list[float]

    def apply(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Turn raw values into the model's values."""
        scaled: NDArray[np.float32] = x.astype(np.float32) * np.asarray(self.scale, np.float32)
        scaled += np.asarray(self.offset, np.float32)
        return scaled

    def undo(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Turn the model's values into raw values: the inverse of `apply`."""
        raw: NDArray[np.float64] = (x - np.asarray(self.offset)) / np.asarray(self.scale)
        return raw

    @property
    def assets(self) -> dict[str, bytes]:
        """Contents of the files that `to_json` names: none."""
        return {}

    def to_json(self) -> dict[str, Any]:
        """The manifest's `preprocessing` of one input."""
        return {"kind": "numbers", "scale": self.scale, "offset": self.offset}


def fit_scaling(rule: str | Scaling, x: Rows, *, per_column: bool) -> Preprocessing | None:
    """Compute the numbers of a recipe's rule from the training rows.

    Args:
        rule: the recipe's `data.normalize`.
        x: the training rows.
        per_column: whether each value of the last dimension has numbers of its own.

    Returns:
        None for the rule "none".
    """
    if isinstance(rule, Scaling):
        return Preprocessing(rule.scale, rule.offset)
    if rule == "none":
        return None
    axis = 0 if per_column else None
    if rule == "standardize":
        center = _mean(x, lambda part: part, axis)
        width = np.sqrt(_mean(x, lambda part: np.square(part - center), axis))
    elif x.dtype in (np.uint8, np.uint16):  # pixels: 255 is white, even if no training row has it
        center, width = np.float64(0), np.float64(np.iinfo(x.dtype).max)
    else:
        ends = [(part.min(axis=axis), part.max(axis=axis)) for part in chunks(x)]
        center = np.min([low for low, _ in ends], axis=0).astype(np.float64)
        width = np.max([high for _, high in ends], axis=0) - center
    scale = 1.0 / np.where(width == 0, 1.0, width)  # a constant column stays constant
    return Preprocessing(scale.tolist(), (-center * scale + 0.0).tolist())


def _mean(x: Rows, function: Callable[[NDArray[Any]], NDArray[Any]], axis: int | None) -> Any:
    """Mean of a function of all values, in float64; bit for bit the same in memory and on disk."""
    total = sum(function(part.astype(np.float64)).sum(axis=axis) for part in chunks(x))
    return total / (len(x) if axis == 0 else math.prod(x.shape))
