"""The units of regression targets: a model trained on standardized targets is changed to answer in the original ones.

The change of units is linear, and so is the last layer: it is folded into that layer's kernel and bias. The kernel
keeps its zeros and, column by column, its grid.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import TrainError
from litelambda.data.scaling import Preprocessing
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.layers import read


def in_own_units(model: Any, scaling: Preprocessing) -> None:
    """Make a model that answers in standardized units answer in the original units of the targets.

    Args:
        model: the Keras model, changed in place.
        scaling: the standardization of the targets.

    Raises:
        TrainError: its last layer is not a linear Dense layer with a bias.
    """
    scale, offset = np.asarray(scaling.scale), np.asarray(scaling.offset)
    _change(model, 1 / scale, -offset / scale)


def in_standard_units(model: Any, scaling: Preprocessing) -> None:
    """The inverse of `in_own_units`, for a saved model that is trained further.

    Raises:
        TrainError: as `in_own_units`.
    """
    _change(model, np.asarray(scaling.scale), np.asarray(scaling.offset))


def check_can_change_units(model: Any) -> None:
    """Refuse a model whose units cannot be changed, before it is trained.

    Raises:
        TrainError: its last layer is not a linear Dense layer with a bias.
    """
    _last_layer(model)


def _change(model: Any, scale: NDArray[Any], offset: NDArray[Any]) -> None:
    """Replace the outputs y by y x scale + offset."""
    layer = _last_layer(model)
    layer.kernel.assign((read(layer.kernel) * scale).astype(np.float32))
    layer.bias.assign((read(layer.bias) * scale + offset).astype(np.float32))


def _last_layer(model: Any) -> Any:
    keras, layer = load_keras(), model
    while hasattr(layer, "layers"):  # a model, or one inside another
        layer = layer.outputs[0]._keras_history.operation
    if isinstance(layer, keras.layers.Dense) and layer.activation is keras.activations.linear and layer.use_bias:
        return layer
    raise TrainError(
        "data.targets = 'standardize' needs a model that ends with a Dense layer with a bias and without an "
        f"activation; this one ends with {type(layer).__name__} {layer.name!r}: change the last layer, or use "
        "data.targets = 'none'"
    )
