"""Layers whose lowering in TFLite is wrong for some values, written so that it is right.

TFLite computes softplus as log(1 + exp(x)), which overflows above 88.4; and it drops the smallest norm that Keras
divides by, so that a row of zeros scaled to unit length becomes NaN.
"""

from __future__ import annotations

from typing import Any

from litelambda.conversion.rewrites import Rewrite
from litelambda.keras_tools.backend import load_keras

_SMALLEST_NORM = 1e-12  # that of Keras' UnitNormalization


def with_exact_operators(layer: Any) -> Rewrite | None:
    """The rewrite of a layer that TFLite would get wrong for some values; None for other layers."""
    keras = load_keras()
    if getattr(layer, "activation", None) is keras.activations.softplus:
        return Rewrite("softplus beyond 88", layer, "activation", _softplus)
    if isinstance(layer, keras.layers.UnitNormalization):

        def normalize(_: Any, tensor: Any) -> Any:
            norm = keras.ops.sqrt(keras.ops.sum(keras.ops.square(tensor), axis=layer.axis, keepdims=True))
            return tensor / keras.ops.maximum(norm, _SMALLEST_NORM)

        return Rewrite("unit length of a row of zeros", layer, "call", normalize)
    return None


def _softplus(_: Any, tensor: Any) -> Any:
    ops = load_keras().ops
    return ops.relu(tensor) + ops.log1p(ops.exp(-ops.abs(tensor)))
