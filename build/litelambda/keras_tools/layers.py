"""Keras layers for compression: the layers with kernels, and models rebuilt with other layers.

A kernel is treated as a matrix with the output channels last, because int8 has one scale per output channel.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import TrainError
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import copy_layer, copy_state

Array = NDArray[Any]
Replacements = Mapping[str, Sequence[tuple[dict[str, Any], list[Array]]]]
"""By a layer's name the chain of layers that replaces it, as (serialized layer, weights)."""
RMS_ROWS = 1024
"""Training rows to estimate root mean squares from: within 2 % for normal values, by 1 / sqrt(2 n).

An MLP on MNIST that was pruned by weights times these was as accurate with 64 rows."""


def layers_with_kernel(model: Any) -> dict[str, Any]:
    """The layers with a kernel of rank two or more, by name."""
    return {
        layer.name: layer
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "kernel", None) is not None and len(layer.kernel.shape) > 1
    }


def kernels(model: Any, exclude: Iterable[str] = (), step: str = "") -> dict[str, Any]:
    """The layers to compress: those with a kernel that are not excluded.

    Args:
        model: the Keras model.
        exclude: names of layers to leave out.
        step: the recipe's key of the step, for messages.

    Raises:
        TrainError: an excluded layer does not exist, or none is left.
    """
    found = layers_with_kernel(model)
    unknown = [name for name in exclude if name not in found]
    if unknown:
        raise TrainError(f"{step}.exclude: no layer {', '.join(unknown)}; layers with a kernel are {', '.join(found)}")
    left = {name: layer for name, layer in found.items() if name not in set(exclude)}
    if not left:
        raise TrainError(f"{step}: every layer with a kernel is excluded")
    return left


def exclusion_reasons(model: Any, exclude: Iterable[str]) -> dict[str, str]:
    """Why layers with weights are not in the result of `kernels`."""
    found = layers_with_kernel(model)
    reasons = dict.fromkeys((name for name in exclude if name in found), "named in exclude")
    for layer in model._flatten_layers(include_self=False):
        if layer.weights and layer.name not in found and not hasattr(layer, "layers"):
            reasons[layer.name] = f"{type(layer).__name__} has no kernel of its own"
    return reasons


def read(variable: Any) -> Array:
    """A copy of a variable's value."""
    return np.array(load_keras().ops.convert_to_numpy(variable))


def is_depthwise(layer: Any) -> bool:
    """Whether the kernel's last two dimensions, not the last alone, are the output channels."""
    keras = load_keras()
    return isinstance(layer, keras.layers.DepthwiseConv1D | keras.layers.DepthwiseConv2D)


def as_matrix(layer: Any, kernel: Array) -> Array:
    """A kernel as (weights of a channel, output channels); a view."""
    channels = kernel.shape[-1] * (kernel.shape[-2] if is_depthwise(layer) else 1)
    return kernel.reshape(-1, channels)


def input_rms(model: Any, layers: Mapping[str, Any], rows: Array) -> dict[str, Array]:
    """Root mean square of each layer's input per input channel.

    Args:
        model: whose layers they are.
        layers: by name.
        rows: of the model's only input; see `RMS_ROWS`.

    Raises:
        TrainError: a layer is inside a nested model, whose inner tensors cannot be read.
    """
    keras = load_keras()
    try:
        inputs = [layer.input for layer in layers.values()]
        reader = keras.Model(model.inputs, inputs)
        found = reader.predict(rows, batch_size=model.inputs[0].shape[0] or 256, verbose=0)
    except (AttributeError, ValueError) as error:
        raise TrainError(f"the inputs of the layers {', '.join(layers)} cannot be read: {error}") from error
    values = found if isinstance(found, list) else [found]
    return {
        name: np.sqrt(np.mean(np.square(each, dtype=np.float64), axis=tuple(range(each.ndim - 1))))
        for name, each in zip(layers, values, strict=True)
    }


def rebuild(model: Any, replacements: Replacements) -> Any:
    """Copy a model with some layers replaced, each by a chain of layers; all others keep their state.

    Args:
        model: Sequential or Functional.
        replacements: by layer name, the chain as (serialized layer, weights); an empty chain removes the layer.

    Raises:
        TrainError: Keras cannot rebuild the model, as with layers inside nested models.
    """
    keras = load_keras()
    made: list[tuple[Any, list[Any]]] = []

    def make(layer: Any) -> list[Any]:
        chain = [keras.layers.deserialize(config) for config, _ in replacements.get(layer.name, ())]
        made.append((layer, chain if layer.name in replacements else [copy_layer(layer)]))
        return made[-1][1]

    def make_one(layer: Any) -> Any:
        chain = make(layer)
        if not chain:
            return keras.layers.Identity(name=layer.name)
        return chain[0] if len(chain) == 1 else keras.Sequential(chain, name=layer.name)

    def call(layer: Any, *arguments: Any, **settings: Any) -> Any:
        if isinstance(layer, keras.layers.Identity):
            settings.pop("mask", None)  # only the removed layer took one
        return layer(*arguments, **settings)

    if isinstance(model, keras.Sequential):
        first = keras.Input(batch_shape=model.inputs[0].shape, dtype=model.inputs[0].dtype, name=model.inputs[0].name)
        copy = keras.Sequential([first, *(each for layer in model.layers for each in make(layer))], name=model.name)
    else:
        copy = keras.models.clone_model(model, clone_function=make_one, call_function=call)
    try:
        _fill(made, replacements)
    except ValueError as error:
        raise TrainError(f"the model {model.name!r} cannot be rebuilt with other layers: {error}") from error
    return copy


def _fill(made: list[tuple[Any, list[Any]]], replacements: Replacements) -> None:
    """Give new layers the state of those that they were copied from, or the weights of their chain."""
    for layer, chain in made:
        if layer.name in replacements:
            for each, (_, weights) in zip(chain, replacements[layer.name], strict=True):
                each.set_weights(weights)
        else:
            copy_state(layer, chain[0])


def serialize(layer: Any, **changes: Any) -> dict[str, Any]:
    """A layer's serialized form with some settings changed, for `rebuild`."""
    config = load_keras().layers.serialize(layer)
    config["config"] = {**config["config"], **changes}
    config.pop("build_config", None)
    serialized: dict[str, Any] = config
    return serialized
