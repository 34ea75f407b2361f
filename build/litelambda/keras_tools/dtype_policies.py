"""In which precision the layers of a model compute, set on the layers themselves.

Weights, and all else that a layer keeps, stay as they are: Keras casts what is 32 bits to 16, or back, when it is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from litelambda.keras_tools.backend import load_keras

_SIXTEEN_BITS = ("float16", "bfloat16")


def set_policies(model: Any, policy_of: Callable[[Any], str]) -> None:
    """Let every layer compute in the precision that a function of it names.

    Layers that compute with other numbers than floats, or with quantized ones, are left alone.
    """
    keras = load_keras()
    for layer in model._flatten_layers():
        policy = layer.dtype_policy
        if policy.name.startswith(("float", "bfloat", "mixed_")) and not isinstance(
            policy, keras.dtype_policies.QuantizedDTypePolicy
        ):
            layer.dtype_policy = policy_of(layer)
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # what it was adapted to is kept in the precision that it computes in


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Let the layers of a model that compute in 16 bits do so in 32, which is what TFLite has kernels for."""
    before = {id(layer): layer.dtype_policy for layer in model._flatten_layers()}
    if not any(layer.compute_dtype in _SIXTEEN_BITS for layer in model._flatten_layers()):
        yield
        return
    set_policies(model, lambda layer: "float32" if layer.compute_dtype in _SIXTEEN_BITS else before[id(layer)])
    try:
        yield
    finally:
        set_policies(model, lambda layer: before[id(layer)])
