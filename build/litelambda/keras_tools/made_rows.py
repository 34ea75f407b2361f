"""Made rows for the rewrites of a Keras model to prove themselves on, and how far two answers to them are apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.conversion.graph import call
from litelambda.evaluation.comparison import made_runs
from litelambda.evaluation.model_inputs import describe_inputs
from litelambda.keras_tools.backend import backend_errors, load_keras

Rows = dict[str, NDArray[Any]]

ULPS = 1024
"""Of float32, at the largest answer: what a rewrite of one layer may change. Another order of the same sums moves an
answer by a few dozen, in a recurrent layer over 256 steps by a few hundred; a weight, a mask or a step that is not the
same moves it by percents, and one percent is more than 83,000."""


def made_batches(model: Any) -> list[Rows]:
    """The rows of `made_runs` by input name: all in one batch, or as many at a time as the model is fixed to."""
    runs = made_runs(describe_inputs(model)).inputs
    if all(tensor.shape and tensor.shape[0] is None for tensor in model.inputs):
        return [{name: values.reshape(-1, *values.shape[2:]) for name, values in runs.items()}]
    return [{name: values[index] for name, values in runs.items()} for index in range(len(next(iter(runs.values()))))]


def answered(model: Any) -> Iterator[tuple[Rows, list[Any]]]:
    """What a model answers to made rows: batches, or where it refuses one those rows of it that it takes."""
    for batch in made_batches(model):
        try:
            yield batch, call(model, list(batch.values()))
        except backend_errors():
            yield from _one_by_one(model, batch)


def _one_by_one(model: Any, batch: Rows) -> Iterator[tuple[Rows, list[Any]]]:
    if any(tensor.shape[:1] != (None,) for tensor in model.inputs):
        return
    for index in range(len(next(iter(batch.values())))):
        row = {name: values[index : index + 1] for name, values in batch.items()}
        try:
            yield row, call(model, list(row.values()))
        except backend_errors():  # its data is of another kind
            continue


def difference_ulps(expected: Any, found: Any) -> float:
    """How far apart two structures of tensors are, in ulps of float32 at the largest answer of each tensor.

    Integers, booleans and strings, the shapes, and where values are NaN or infinite must be the same: else infinite.
    """
    tree = load_keras().tree
    both = [[_array(each) for each in tree.flatten(side)] for side in (expected, found)]
    if len(both[0]) != len(both[1]):
        return float("inf")
    return max(map(_difference, *both), default=0.0)


def _difference(expected: NDArray[Any], found: NDArray[Any]) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind != "f" or found.dtype.kind != "f":
        return 0.0 if np.array_equal(expected, found) else float("inf")
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return float("inf")
    apart = np.abs(expected[finite].astype(np.float64) - found[finite])
    if not apart.any():
        return 0.0
    largest = np.abs(expected[finite]).max()
    return float(apart.max() / np.spacing(np.float32(largest))) if largest else float("inf")


def _array(tensor: Any) -> NDArray[Any]:
    array = np.asarray(tensor.numpy() if hasattr(tensor, "numpy") else tensor)
    return array.astype(np.float32) if array.dtype.kind == "V" else array  # bfloat16
