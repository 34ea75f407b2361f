"""Low rank: a large kernel becomes the product of two thin ones, which is smaller and takes fewer multiplications.

A Dense layer becomes Dense(rank) and Dense(units); a convolution becomes one with `rank` filters and a 1 x 1
convolution. The last of the two keeps the layer's name, bias and activation.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from litelambda.common.errors import TrainError
from litelambda.common.progress import ReportProgress
from litelambda.compression.fine_tuning import TrainingContext, fine_tune
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import check_same, copy_model
from litelambda.keras_tools.layers import Array, Replacements, as_matrix, kernels, read, rebuild, serialize
from litelambda.recipe.compression import LowRank


@dataclass(frozen=True)
class Factorization:
    """What was factorized.

    Attributes:
        ranks: by layer, the inner size of its two factors.
        energy: by layer, the share of its squared singular values that they kept.
        parameters: of the model before and after.
        history: per metric its value after each epoch of fine-tuning.
        excluded: why layers were not changed that the recipe does not exclude.
    """

    ranks: dict[str, int]
    energy: dict[str, float]
    parameters: tuple[int, int]
    history: dict[str, list[float]]
    excluded: dict[str, str] = field(default_factory=dict)


def factorize(
    model: Any, settings: LowRank, context: TrainingContext, progress: ReportProgress
) -> tuple[Any, Factorization]:
    """Factorize a model's large kernels and fine-tune it.

    Returns:
        The new model, and what was done.

    Raises:
        TrainError: an excluded layer does not exist, no layer would get smaller, or fine-tuning failed.
    """
    replacements, ranks, kept, excluded = {}, {}, {}, {}
    for name, layer in kernels(model, settings.exclude, "compress.low_rank").items():
        if reason := _unsuited(layer, settings.min_weights):
            excluded[name] = reason
            continue
        matrix = as_matrix(layer, read(layer.kernel)).astype(np.float64)
        left, values, right = np.linalg.svd(matrix, full_matrices=False)
        rank = _rank(values, settings)
        if rank * sum(matrix.shape) >= matrix.size:
            excluded[name] = f"two factors of rank {rank} would have more weights"
            continue
        root = np.sqrt(values[:rank])
        replacements[name] = _chain(layer, left[:, :rank] * root, root[:, np.newaxis] * right[:rank])
        ranks[name], kept[name] = rank, float(np.sum(values[:rank] ** 2) / np.sum(values**2))
    if not ranks:
        raise TrainError(
            "compress.low_rank: no Dense layer or convolution would get smaller: lower rank, energy or min_weights"
        )
    smaller = rebuild(model, replacements)
    _check(model, smaller, replacements)
    history = fine_tune(smaller, context, settings, [], progress)
    return smaller, Factorization(ranks, kept, (model.count_params(), smaller.count_params()), history, excluded)


def _check(model: Any, smaller: Any, replacements: Replacements) -> None:
    """Refuse factors whose model does not answer as the original with their product in place of the kernel.

    Raises:
        TrainError: it does not; the message names the layer.
    """
    whole = copy_model(model)
    for name, ((_, [left]), (_, [right, *_])) in replacements.items():
        layer = whole.get_layer(name)
        product = left.reshape(-1, left.shape[-1]) @ right.reshape(left.shape[-1], -1)
        layer.kernel.assign(product.reshape(layer.kernel.shape))
    check_same(whole, smaller, "factorized", changed=replacements)


def _unsuited(layer: Any, min_weights: int) -> str:
    """Why a layer cannot be factorized; "" where it can and is large enough."""
    keras = load_keras()
    num_weights = math.prod(layer.kernel.shape)
    if type(layer) not in (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D):
        return f"a {type(layer).__name__} cannot be split into two layers"
    if getattr(layer, "groups", 1) != 1:
        return "its filters are grouped"
    return f"{num_weights:,} weights are fewer than min_weights = {min_weights:,}" if num_weights < min_weights else ""


def _rank(values: Array, settings: LowRank) -> int:
    if settings.rank is not None:
        return min(settings.rank, len(values))
    energy = np.cumsum(values**2) / np.sum(values**2)
    return int(np.searchsorted(energy, settings.energy) + 1)


def _chain(layer: Any, left: Array, right: Array) -> list[tuple[dict[str, Any], list[Array]]]:
    keras = load_keras()
    rank = left.shape[1]
    thin: dict[str, Any] = {"name": f"{layer.name}_inner", "use_bias": False, "activation": "linear"}
    bias = [read(layer.bias)] if layer.use_bias else []
    if isinstance(layer, keras.layers.Dense):
        first = serialize(layer, **thin, units=rank)
        second = serialize(layer)
        return [(first, [left]), (second, [right, *bias])]
    ones = [1] * (len(layer.kernel.shape) - 2)
    first = serialize(layer, **thin, filters=rank)
    second = serialize(layer, kernel_size=ones, strides=ones, dilation_rate=ones, padding="valid")
    return [
        (first, [left.reshape(*layer.kernel.shape[:-1], rank)]),
        (second, [right.reshape(*ones, rank, -1), *bias]),
    ]
