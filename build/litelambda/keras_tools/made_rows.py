"""Made rows: inputs for any model, to compare two versions of it on, and how far their answers are apart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.arrays import Arrays
from litelambda.keras_tools.backend import backend_errors, load_keras
from litelambda.keras_tools.graph import call
from litelambda.keras_tools.model_inputs import ModelInput, describe_inputs

ULPS = 1024
"""The tolerance for a rewrite of one layer, in ulps of float32 at the largest answer. Another order of the same sums
changes an answer by a few dozen, in a recurrent layer over 256 steps by a few hundred; a different weight, mask or step
changes it by percents, and one percent is more than 83,000."""

_STRINGS = np.array([b"", b"a", b"text", "gr\u00fc\u00df".encode(), b"longer " * 40, b"42"], object)
_OPEN_IDS = 10  # ids for integer inputs of unknown range: most lookup tables have as many entries


@dataclass(frozen=True)
class Runs:
    """Inputs for a model, each entry the whole input of one run.

    Attributes:
        inputs: by name, (runs, *shape of an input).
        names: what each run is, for messages.
        kinds: runs whose outputs have the same range: "small", "pixels", "representative".
    """

    inputs: Arrays
    names: list[str]
    kinds: list[str]

    def take(self, indices: Sequence[int]) -> Runs:
        """Some of the runs."""
        return Runs(
            {name: values[list(indices)] for name, values in self.inputs.items()},
            [self.names[index] for index in indices],
            [self.kinds[index] for index in indices],
        )

    def joined(self, other: Runs | None) -> Runs:
        """These runs and others after them."""
        if other is None:
            return self
        inputs = {name: np.concatenate([values, other.inputs[name]]) for name, values in self.inputs.items()}
        return Runs(inputs, [*self.names, *other.names], [*self.kinds, *other.kinds])


def made_runs(inputs: Sequence[ModelInput]) -> Runs:
    """Runs for any model: zeros, ones, the ends of what its types and vocabularies allow, padded and masked rows."""
    noise = np.random.default_rng(0)
    columns = [dict(_kinds_of_rows(each, noise)) for each in inputs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    arrays: Arrays = {
        each.name: np.stack([column.get(name, column["random"]) for name in names])
        for each, column in zip(inputs, columns, strict=True)
    }
    return Runs(arrays, names, ["pixels" if name.startswith("pixels") else "small" for name in names])


def _kinds_of_rows(spec: ModelInput, noise: np.random.Generator) -> Iterator[tuple[str, NDArray[Any]]]:
    shape = tuple(size or 1 for size in spec.shape)
    if spec.dtype == "string":
        yield "zeros", np.full(shape, b"", object)
        yield "random", noise.choice(_STRINGS, shape)
        yield "random (2)", noise.choice(_STRINGS, shape)
        return
    dtype = np.dtype(spec.dtype)
    is_real = dtype.kind == "f" and spec.limit is None
    ids = min(spec.limit or _OPEN_IDS, 2 if dtype.kind == "b" else 2**31)
    some = [noise.random(shape) if is_real else noise.integers(0, ids, shape) for _ in range(3)]
    yield "zeros", np.zeros(shape, dtype)
    yield "ones", np.full(shape, min(1, ids - 1) if not is_real else 1, dtype)
    yield "random", some[0].astype(dtype)
    yield "random (2)", some[1].astype(dtype)
    if is_real:
        yield "normal", noise.standard_normal(shape).astype(dtype)
        yield "ramp from -1 to 1", np.linspace(-1, 1, max(1, int(np.prod(shape)))).reshape(shape).astype(dtype)
        yield "pixels", np.round(noise.random(shape) * 255).astype(dtype)
    else:
        yield "largest id" if spec.limit else "nines", np.full(shape, ids - 1, dtype)
        if spec.limit is None and dtype.kind in "iu" and dtype.itemsize == 1:
            yield "pixels, smallest", np.full(shape, np.iinfo(dtype).min, dtype)
            yield "pixels, largest", np.full(shape, np.iinfo(dtype).max, dtype)
            yield "pixels, random", noise.integers(np.iinfo(dtype).min, np.iinfo(dtype).max + 1, shape).astype(dtype)
    if len(shape) > 1 and shape[1] > 1:
        for value in spec.mask_values or (0.0,):
            yield from _masked(some[2].astype(dtype) + dtype.type(is_real), dtype.type(value))


def _masked(row: NDArray[Any], value: Any) -> Iterator[tuple[str, NDArray[Any]]]:
    """A row padded with a value at its end, at its start, and all of it."""
    half = row.shape[1] // 2
    at_end, at_start = row.copy(), row.copy()
    at_end[:, half:], at_start[:, : row.shape[1] - half] = value, value
    yield f"padded with {value:g} at the end", at_end
    yield f"padded with {value:g} at the start", at_start
    yield f"fully masked with {value:g}", np.full_like(row, value)


def made_batches(model: Any) -> list[Arrays]:
    """The rows of `made_runs` by input name: all in one batch, or as many at a time as the model is fixed to."""
    runs = made_runs(describe_inputs(model)).inputs
    if all(tensor.shape and tensor.shape[0] is None for tensor in model.inputs):
        return [{name: values.reshape(-1, *values.shape[2:]) for name, values in runs.items()}]
    return [{name: values[index] for name, values in runs.items()} for index in range(len(next(iter(runs.values()))))]


def answered(model: Any) -> Iterator[tuple[Arrays, list[Any]]]:
    """A model's answers to made batches, or, where it refuses a batch, to those rows of it that it takes."""
    for batch in made_batches(model):
        try:
            yield batch, call(model, list(batch.values()))
        except backend_errors():
            yield from _one_by_one(model, batch)


def _one_by_one(model: Any, batch: Arrays) -> Iterator[tuple[Arrays, list[Any]]]:
    if any(tensor.shape[:1] != (None,) for tensor in model.inputs):
        return
    for index in range(len(next(iter(batch.values())))):
        row = {name: values[index : index + 1] for name, values in batch.items()}
        try:
            yield row, call(model, list(row.values()))
        except backend_errors():  # the model refuses this row
            continue


def difference_ulps(expected: Any, found: Any) -> float:
    """The difference of two structures of tensors, in ulps of float32 at the largest value of each tensor.

    It is infinite where integers, booleans, strings, shapes, or the places of NaN and infinity differ.
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
