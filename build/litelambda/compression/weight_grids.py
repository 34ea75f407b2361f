"""Weights on coarse grids inside int8: quantization-aware training on few bits, and clustering to few values.

The converter gives an output channel the scale max|w| / 127. A weight that is an integer k of -127…127 times that scale
becomes exactly the code k. So the weights that are trained are those that ship, and few distinct codes compress well.
Layers that ship in native int4 have the scale max|w| / 7, and their own grid.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import TrainError
from litelambda.common.progress import ReportProgress
from litelambda.compression.fake_quantization import copy_weights, fake_quantized, ranges
from litelambda.compression.fine_tuning import TrainingContext, fine_tune
from litelambda.compression.straight_through import straight_through
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.layers import Array, as_matrix, kernels, read
from litelambda.recipe.compression import Clustering, QuantizationAware
from litelambda.training.fit import compile_with_recipe_loss

_CODE_MAX = 127


@dataclass(frozen=True)
class GridTraining:
    """Weights that were put on grids.

    Attributes:
        distinct_values: number of distinct int8 codes per layer.
        history: per metric its value after each epoch.
        bits: of each layer's grid; empty for clustering.
        activation_ranges: the lowest and highest value of each fake-quantized activation, as training left them.
    """

    distinct_values: dict[str, int]
    history: dict[str, list[float]]
    bits: dict[str, int] = field(default_factory=dict)
    activation_ranges: dict[str, list[float]] = field(default_factory=dict)


def quantization_aware(
    model: Any, settings: QuantizationAware, context: TrainingContext, progress: ReportProgress
) -> GridTraining:
    """Train a model in place with its kernels on the grid of a few bits, and leave them there.

    Raises:
        TrainError: a named layer does not exist, no layer is left, or training failed.
    """
    step = "compress.quantization_aware"
    layers = kernels(model, settings.exclude, step)
    unknown = [name for name in settings.layer_bits if name not in layers]
    if unknown:
        raise TrainError(f"{step}.layer_bits: no layer {', '.join(unknown)}; choose from {', '.join(layers)}")
    bits = {name: settings.layer_bits.get(name, settings.bits) for name in layers}
    codes = {}
    for name, layer in layers.items():
        native = _ships_in_int4(layer, context)
        bits[name] = min(bits[name], 4) if native and context.int4 != "auto" else bits[name]
        codes[name] = even_codes(bits[name], int4=native and bits[name] <= 4)
    if not settings.activations:
        return replace(_train_on(model, layers, codes, settings, context, progress), bits=bits)
    watched, quantizers = fake_quantized(model)
    done = _train_on(watched, kernels(watched, settings.exclude, step), codes, settings, context, progress)
    copy_weights(watched, model)
    compile_with_recipe_loss(model, context.train, context.data)
    return replace(done, bits=bits, activation_ranges=ranges(quantizers))


def _ships_in_int4(layer: Any, context: TrainingContext) -> bool:
    dense = isinstance(layer, load_keras().layers.Dense)
    return dense and (context.int4 == "auto" or layer.name in context.int4)


def cluster(model: Any, settings: Clustering, context: TrainingContext, progress: ReportProgress) -> GridTraining:
    """Train a model in place with few distinct weights per layer.

    Raises:
        TrainError: an excluded layer does not exist, no layer is left, or training failed.
    """
    layers = kernels(model, settings.exclude, "compress.clustering")
    codes = {
        name: shared_codes(normalize(as_matrix(layer, read(layer.kernel))), settings.clusters)
        for name, layer in layers.items()
    }
    return _train_on(model, layers, codes, settings, context, progress)


def _train_on(
    model: Any,
    layers: Mapping[str, Any],
    codes: Mapping[str, Array],
    settings: QuantizationAware | Clustering,
    context: TrainingContext,
    progress: ReportProgress,
) -> GridTraining:
    def projection(name: str) -> Callable[[Array], Array]:
        layer, mask = layers[name], context.masks.get(name)

        def project(free: Array) -> Array:
            values = free if mask is None else free * mask
            return snap(as_matrix(layer, values), codes[name]).reshape(free.shape)

        return project

    callback = straight_through(
        {name: layer.kernel for name, layer in layers.items()},
        {name: projection(name) for name in layers},
        lambda _step, _free: None,
    )
    history = fine_tune(model, context, settings, [callback], progress)
    if not settings.epochs:
        callback.project()  # clustering alone, without fine-tuning
    used = {name: to_codes(as_matrix(layer, read(layer.kernel))) for name, layer in layers.items()}
    return GridTraining({name: len(np.unique(each)) for name, each in used.items()}, history)


def even_codes(bits: int, *, int4: bool = False) -> Array:
    """A symmetric grid of some bits: 2^bits - 1 codes, zero and both ends among them, in int8's units.

    Args:
        bits: from 2 to 8; up to 4 for int4.
        int4: codes that are integers of -7…7, times 127 / 7, instead of integers of -127…127.

    Example:
        >>> even_codes(3).tolist()
        [-127.0, -85.0, -42.0, 0.0, 42.0, 85.0, 127.0]
    """
    levels, top = 2 ** (bits - 1) - 1, 7 if int4 else _CODE_MAX
    codes: Array = np.round(np.arange(-levels, levels + 1) * (top / levels)) * (_CODE_MAX / top)
    return codes


def shared_codes(normalized: Array, clusters: int) -> NDArray[np.int64]:
    """Choose the codes that a layer's weights share: of all that have 0 and ±127, those of the least squared error.

    Found by dynamic programming over the 255 codes: 30 ms for 50,000 weights and 16 codes, 0.6 s for 4 million. 30
    rounds of k-means take 4 to 10 times as long and end 5-7 % above the least error with 16 codes, 41-51 % with 32;
    k-means to its end is 2 % above it with 32 codes, 20 % with 64 (MNIST's first layer, and normal weights).

    Args:
        normalized: weights divided by the largest magnitude of their channel.
        clusters: the largest number of codes.

    Example:
        >>> shared_codes(np.array([-1.0, 0.5, 0.52, 1.0]), clusters=4).tolist()
        [-127, 0, 65, 127]
    """
    error = _errors_between(np.sort(normalized, axis=None).astype(np.float64) * _CODE_MAX)
    least, before = error[0], []  # of paths from the first code to each, in steps from code to code
    for _ in range(clusters - 2):
        paths = least[:, None] + error
        before.append(paths.argmin(axis=0))
        least = paths.min(axis=0)
    path = [2 * _CODE_MAX]
    for step in reversed(before):
        path.append(int(step[path[-1]]))
    return np.unique([0, *path]) - _CODE_MAX


def _errors_between(values: Array) -> Array:
    """The squared error of the values between each code and each later one, if both are used and none in between.

    Infinite across 0, which is always used; 0 from a code to itself.

    Args:
        values: sorted, in units of a code.
    """
    # What lies up to each half code: how many values, their sum, and that of their squares.
    ends = np.searchsorted(values, np.arange(-2 * _CODE_MAX, 2 * _CODE_MAX + 1) / 2, side="right")
    counts, sums, squares = (np.concatenate([[0.0], np.cumsum(values**power)])[ends] for power in (0, 1, 2))

    def snapped(start: Array, stop: Array, code: Array) -> Array:
        count, total, square = (each[stop] - each[start] for each in (counts, sums, squares))
        errors: Array = square - 2 * code * total + code**2 * count
        return errors

    left, right = np.indices((2 * _CODE_MAX + 1, 2 * _CODE_MAX + 1))
    middle = left + right
    error = snapped(2 * left, middle, left - _CODE_MAX) + snapped(middle, 2 * right, right - _CODE_MAX)
    error[(left > right) | ((left < _CODE_MAX) & (right > _CODE_MAX))] = np.inf
    return error


def normalize(matrix: Array) -> Array:
    """Weights divided by the largest magnitude of their channel, a column."""
    largest = np.abs(matrix).max(axis=0, keepdims=True)
    scaled: Array = matrix / np.where(largest == 0, 1, largest)
    return scaled


def snap(matrix: Array, codes: Array) -> Array:
    """Move every weight to the nearest of the codes, in units of its channel's largest magnitude over 127.

    Example:
        >>> snap(np.array([[1.0], [0.3], [-0.1]]), even_codes(2)).round(2).tolist()
        [[1.0], [0.0], [0.0]]
    """
    largest = np.abs(matrix).max(axis=0, keepdims=True)
    between = (codes[1:] + codes[:-1]) / 2
    scaled = matrix * (_CODE_MAX / np.where(largest == 0, 1, largest))
    snapped: Array = codes[np.searchsorted(between, scaled)] * (largest / _CODE_MAX)
    return snapped


def to_codes(matrix: Array) -> NDArray[np.int64]:
    """The int8 codes that the converter will give a kernel, one column per channel."""
    codes: NDArray[np.int64] = np.round(normalize(matrix) * _CODE_MAX).astype(np.int64)
    return codes
