"""Batch normalization folding: one that follows a linear layer becomes part of that layer's kernel and bias.

The converter folds as well, but later: folded here, the weights that are pruned and put on a grid are those that ship.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from litelambda.common.errors import TrainError
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import check_same
from litelambda.keras_tools.graph import only_follower
from litelambda.keras_tools.layers import Array, is_depthwise, kernels, read, rebuild, serialize


def fold_batch_norm(model: Any) -> tuple[Any, list[str]]:
    """Fold all batch normalizations that can be folded.

    Returns:
        The new model, and the names of the normalizations that were folded.

    Raises:
        TrainError: there are none.
    """
    keras = load_keras()
    replacements: dict[str, list[tuple[dict[str, Any], list[Array]]]] = {}
    folded = []
    for name, layer in kernels(model, (), "compress.fold_batch_norm").items():
        norm = only_follower(model, layer)
        linear = getattr(layer, "activation", None) is keras.activations.linear
        if not isinstance(norm, keras.layers.BatchNormalization) or not linear or not hasattr(layer, "use_bias"):
            continue
        if norm.axis not in (-1, len(layer.output.shape) - 1):
            continue
        replacements[name] = [(serialize(layer, use_bias=True), _folded(layer, norm))]
        replacements[norm.name] = []
        folded.append(norm.name)
    if not folded:
        raise TrainError("compress.fold_batch_norm: no batch normalization follows a layer without an activation")
    smaller = rebuild(model, replacements)
    check_same(model, smaller, "folded", changed=set(replacements) - set(folded))
    return smaller, folded


def _folded(layer: Any, norm: Any) -> list[Array]:
    mean, variance = read(norm.moving_mean), read(norm.moving_variance)
    gamma = read(norm.gamma) if norm.scale else np.ones_like(mean)
    beta = read(norm.beta) if norm.center else np.zeros_like(mean)
    factor = gamma / np.sqrt(variance + norm.epsilon)
    kernel, bias = read(layer.kernel), read(layer.bias) if layer.use_bias else np.zeros_like(mean)
    per_channel = factor.reshape(kernel.shape[-2:]) if is_depthwise(layer) else factor
    return [kernel * per_channel, (bias - mean) * factor + beta]
