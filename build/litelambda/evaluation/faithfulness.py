"""Whether explanations say what a model goes by: deletion and insertion curves, and a check with shuffled weights.

Petsiuk, Das and Saenko (2018), "RISE", for the curves; Adebayo et al. (2018), "Sanity Checks for Saliency Maps", for
the check. Knows arrays and functions of them; where attributions come from does not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.keras_tools.copies import copy_model
from litelambda.keras_tools.layers import read

Array = NDArray[Any]


@dataclass(frozen=True)
class Curves:
    """A model's output while the values of rows go or come, the strongest first, as means over the rows.

    Attributes:
        shares: of the values that went or came, from 0 to 1.
        deletion: the output while the row's values become the baseline's.
        insertion: the output while the baseline's values become the row's.
        deletion_area, insertion_area: under the curves. An explanation is the better, the smaller the first and the
            larger the second.
    """

    shares: list[float]
    deletion: list[float]
    insertion: list[float]
    deletion_area: float
    insertion_area: float


def deletion_and_insertion(
    predict: Callable[[Array], Array], rows: Array, baseline: Array, attributions: Array, steps: int = 20
) -> Curves:
    """Delete and insert the values of rows in the order of their attributions.

    Args:
        predict: the explained output of rows, (n, …) to (n,); the rows come in the order in which they are given.
        rows: (rows, …).
        baseline: a row, or one for each.
        attributions: in the shape of the rows.
        steps: points of the curves, the first apart.

    >>> rows, weights = np.array([[1.0, 1.0]]), np.array([3.0, 1.0])
    >>> curves = deletion_and_insertion(lambda x: x @ weights, rows, np.zeros(2), rows * weights, steps=2)
    >>> curves.deletion, curves.insertion
    ([4.0, 1.0, 0.0], [0.0, 3.0, 4.0])
    """
    flat = rows.reshape(len(rows), -1)
    base = np.broadcast_to(baseline, rows.shape).reshape(flat.shape)
    places = np.argsort(np.argsort(-attributions.reshape(flat.shape), axis=1, kind="stable"), axis=1)
    shares = np.linspace(0, 1, steps + 1)
    counts = np.round(shares * flat.shape[1]).astype(int)
    curves = []
    for onto, source in ((flat, base), (base, flat)):
        mixed = [np.where(places < count, source, onto).reshape(rows.shape) for count in counts]
        curves.append([float(np.mean(predict(each))) for each in mixed])
    areas = [float(np.trapezoid(curve, shares)) for curve in curves]
    return Curves(shares.tolist(), curves[0], curves[1], areas[0], areas[1])


def with_shuffled_weights(model: Any, seed: int = 0) -> Any:
    """A copy of a Keras model in which the values of every weight stand in another order."""
    noise, copy = np.random.default_rng(seed), copy_model(model)
    for weight in copy.weights:
        values = read(weight)
        weight.assign(noise.permutation(values.ravel()).reshape(values.shape))
    return copy


def rank_correlation(one: Array, other: Array) -> float:
    """Spearman's rank correlation of the sizes of two attributions: near 0 where they have nothing in common.

    >>> rank_correlation(np.array([1.0, -3.0, 2.0]), np.array([0.1, 0.9, -0.4]))
    1.0
    """
    first, second = (_ranks(np.abs(each).ravel()) for each in (one, other))
    spread = float(first.std() * second.std())
    return round(float(np.mean((first - first.mean()) * (second - second.mean()))) / spread, 12) if spread else 0.0


def _ranks(values: Array) -> Array:
    """Ranks from 0; of equal values the mean of theirs."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: Array = ((ends - counts + ends - 1) / 2)[inverse]
    return ranks
