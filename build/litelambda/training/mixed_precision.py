"""Mixed precision: layers that compute in 16 bits during training, and the float32 model that leaves it.

Weights are float32 all the time, and so are the model's outputs: probabilities and losses need the digits.

Source: Micikevicius et al. 2018, "Mixed precision training".
"""

from __future__ import annotations

from typing import Any, Literal

from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import copy_model
from litelambda.keras_tools.dtype_policies import set_policies

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


def in_precision(model: Any, precision: Precision) -> Any:
    """Copy a model and set the copy's layers to compute in another precision.

    Args:
        model: Functional or Sequential, of any precision.
        precision: for all layers except those that make the outputs, which stay in float32.

    Returns:
        A model with the same weights, in float32.
    """
    last, copy = _output_layers(model), copy_model(model)
    inputs = load_keras().layers.InputLayer
    set_policies(copy, lambda layer: "float32" if layer.name in last or isinstance(layer, inputs) else precision)
    return copy


def _output_layers(model: Any) -> set[str]:
    return {tensor._keras_history.operation.name for tensor in model.outputs}


def with_loss_scaling(optimizer: Any, model: Any) -> Any:
    """Wrap the optimizer so that it scales the loss up where small gradients would underflow in float16."""
    has_float16 = any(layer.compute_dtype == "float16" for layer in model._flatten_layers(include_self=False))
    return load_keras().optimizers.LossScaleOptimizer(optimizer) if has_float16 else optimizer
