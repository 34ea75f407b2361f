"""How predictions are distributed: counted as they are made, added up over chunks, workers and shards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.scoring.columns import row_shape

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.scoring.formats.base import Array, RowSchema
    from litelambda_serving.tensor import TensorSpec

__all__ = ["PredictionHistogram", "add_tallies"]

Tally = dict[str, dict[str, Any]]


class PredictionHistogram:
    """Makes the tallies of one worker's chunks.

    An output with one vector per row is one of classes: counted is the index (or label) of the largest score. Any other
    is one of values: counted are powers of two, and the sum, smallest and largest value.
    """

    def __init__(self, schema: RowSchema) -> None:
        self._specs = schema.outputs
        self._labels = schema.labels

    def tally(self, outputs: Sequence[Array]) -> Tally:
        """The tally of one chunk's outputs, (rows, …) each."""
        return {
            spec.name: self._classes(array) if _has_classes(spec) else _values(array)
            for spec, array in zip(self._specs, outputs, strict=True)
            if len(array)
        }

    def _classes(self, array: Array) -> dict[str, Any]:
        counts = np.bincount(array.argmax(axis=1), minlength=array.shape[1]).tolist()
        names = self._labels if self._labels and len(self._labels) == len(counts) else range(len(counts))
        return {"classes": {str(name): count for name, count in zip(names, counts, strict=True) if count}}


def _has_classes(spec: TensorSpec) -> bool:
    shape = row_shape(spec)
    return len(shape) == 1 and shape[0] > 1


def _values(array: Array) -> dict[str, Any]:
    values = array.reshape(-1).astype(np.float64)
    finite = values[np.isfinite(values)]
    if not len(finite):
        return {"count": 0, "not_finite": len(values), "powers_of_two": {}}
    exponents, counts = np.unique(np.frexp(finite)[1] * np.sign(finite).astype(int), return_counts=True)
    return {
        "count": len(finite),
        "not_finite": len(values) - len(finite),
        "sum": float(finite.sum()),
        "min": float(finite.min()),
        "max": float(finite.max()),
        "powers_of_two": {str(each): int(count) for each, count in zip(exponents, counts, strict=True)},
    }


def add_tallies(total: Tally, more: Tally) -> None:
    """Add one tally to another, in place."""
    for name, tally in more.items():
        into = total.setdefault(name, {})
        for key, value in tally.items():
            if isinstance(value, dict):
                counts = into.setdefault(key, {})
                for each, count in value.items():
                    counts[each] = counts.get(each, 0) + count
            elif key in ("min", "max"):
                into[key] = (min if key == "min" else max)(into.get(key, value), value)
            else:
                into[key] = into.get(key, 0) + value
