"""The inputs of a model, and what they may hold as far as its layers say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from litelambda.keras_tools.backend import load_keras


@dataclass(frozen=True)
class ModelInput:
    """An input as the model itself describes it.

    Attributes:
        name: its name.
        dtype: numpy's name, or "string".
        shape: of what one run takes, None for open sizes.
        limit: number of ids of the Embedding that reads it; None where that is unknown.
        mask_values: values that a Masking layer, or an Embedding with `mask_zero`, masks.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...]
    limit: int | None = None
    mask_values: tuple[float, ...] = ()


def describe_inputs(model: Any) -> tuple[ModelInput, ...]:
    """A model's inputs, with the limits of ids and the mask values of its layers."""
    found = []
    for tensor in model.inputs:
        limits, masks = _ids_and_masks(model, tensor)
        shape = tuple(tensor.shape)
        found.append(ModelInput(tensor.name, str(tensor.dtype), shape, min(limits, default=None), tuple(masks)))
    return tuple(found)


def _ids_and_masks(model: Any, tensor: Any) -> tuple[list[int], list[float]]:
    """Limits and mask values from the layers that read an input directly, or from all layers where none does."""
    layers = [each for each in model._flatten_layers() if _limit(each) is not None or hasattr(each, "mask_value")]
    direct = [each for each in layers if _takes(each, tensor)]
    near = direct or layers
    is_whole = "int" in str(tensor.dtype)
    limits = [limit for each in near if (limit := _limit(each)) is not None and (is_whole or each in direct)]
    masks = [float(each.mask_value) for each in near if np.ndim(getattr(each, "mask_value", None) or 0) == 0
             and getattr(each, "mask_value", None) is not None and not isinstance(each.mask_value, str)]  # fmt: skip
    masks += [0.0 for each in near if getattr(each, "mask_zero", False)]
    return limits, sorted(set(masks))


def _limit(layer: Any) -> int | None:
    keras = load_keras()
    if isinstance(layer, keras.layers.Embedding):
        return int(layer.input_dim)
    return int(layer.num_tokens) if isinstance(layer, keras.layers.CategoryEncoding) and layer.num_tokens else None


def _takes(layer: Any, tensor: Any) -> bool:
    return any(given is tensor for node in layer._inbound_nodes for given in node.input_tensors)
