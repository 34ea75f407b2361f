"""Precision: layers that compute in 16 bits while a model is trained, and the float32 model that leaves training.

Weights are float32 all the time, and so is what the model gives: probabilities and losses need their digits.

Source: Micikevicius et al. 2018, "Mixed precision training".
"""

from __future__ import annotations

from typing import Any, Literal

from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import copy_model
from litelambda.keras_tools.dtype_policies import set_policies
from litelambda.keras_tools.finite_checks import check_weights
from litelambda.recipe.sections import Recipe, SavedKerasModel
from litelambda.training.models import build_model
from litelambda.training.target_units import check_can_change_units, in_standard_units

Precision = Literal["float32", "mixed_float16", "mixed_bfloat16"]


def in_precision(model: Any, precision: Precision) -> Any:
    """Copy a model, its layers set to compute in another precision.

    Args:
        model: Functional or Sequential, of whatever precision.
        precision: for all layers but those that make the outputs, which stay in float32.

    Returns:
        A model with the same weights, in float32.
    """
    last, copy = _output_layers(model), copy_model(model)
    inputs = load_keras().layers.InputLayer
    set_policies(copy, lambda layer: "float32" if layer.name in last or isinstance(layer, inputs) else precision)
    return copy


def _output_layers(model: Any) -> set[str]:
    return {tensor._keras_history.operation.name for tensor in model.outputs}


def make_model(recipe: Recipe, data: Dataset) -> Any:
    """The recipe's model, made to compute as it is to be trained; its weights start as those of a float32 model do.

    Raises:
        TrainError: it cannot be made, does not fit the data, or has weights that are not finite.
    """
    model = build_model(recipe, data)
    check_weights(model, "the model has them before it is trained")
    if data.target_scaling is not None:
        check_can_change_units(model)
        if isinstance(recipe.model, SavedKerasModel):
            in_standard_units(model, data.target_scaling)
    precision = recipe.train.precision
    return model if precision == "float32" else in_precision(model, precision)


def keep_gradients(optimizer: Any, model: Any) -> Any:
    """The optimizer, with the loss scaled up for it where float16 would take small gradients for zero."""
    halves = any(layer.compute_dtype == "float16" for layer in model._flatten_layers(include_self=False))
    return load_keras().optimizers.LossScaleOptimizer(optimizer) if halves else optimizer
