"""The precision that the layers of a model compute in, set on the layers themselves.

Weights and other state stay as they are: Keras casts them between 32 and 16 bits when they are read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from litelambda.keras_tools.backend import load_keras

_SIXTEEN_BITS = ("float16", "bfloat16")


def set_policies(model: Any, policy_of: Callable[[Any], Any]) -> None:
    """Set the precision that every layer computes in; `policy_of` gives it, or names it.

    Layers that compute with integers or quantized numbers are not changed.
    """
    keras = load_keras()
    for layer in model._flatten_layers():
        policy = layer.dtype_policy
        if policy.name.startswith(("float", "bfloat", "mixed_")) and not isinstance(
            policy, keras.dtype_policies.QuantizedDTypePolicy
        ):
            layer.dtype_policy = policy_of(layer)
            if isinstance(layer, keras.layers.Normalization):
                layer.finalize_state()  # its statistics are cast to the precision that it computes in


@contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Let 16-bit layers compute in 32 bits inside the block: TFLite has no 16-bit kernels."""
    before = {id(layer): layer.dtype_policy for layer in model._flatten_layers()}
    if not any(layer.compute_dtype in _SIXTEEN_BITS for layer in model._flatten_layers()):
        yield
        return
    set_policies(model, lambda layer: "float32" if layer.compute_dtype in _SIXTEEN_BITS else before[id(layer)])
    try:
        yield
    finally:
        set_policies(model, lambda layer: before[id(layer)])
