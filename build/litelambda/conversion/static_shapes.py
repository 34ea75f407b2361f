"""Layers that compute shapes at run time, written with static shapes in which only the batch is open.

After a resize LiteRT keeps stale sizes of tensors whose shape comes from a SHAPE operator, and writes past their end.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from litelambda.conversion.rewrites import Rewrite
from litelambda.keras_tools.backend import load_keras


def with_constant_shapes(layer: Any) -> Rewrite | None:
    """The rewrite of a layer with static sizes; None for layers that have them already."""
    layers = load_keras().layers
    functions = (
        ("with constant sizes", layers.Flatten, _reshape, getattr(layer, "data_format", "") != "channels_first"),
        ("with constant sizes", layers.Reshape, _reshape, True),
        ("on flattened positions", layers.Dense, _flat, True),
        ("resized", layers.UpSampling2D, _nearest, getattr(layer, "interpolation", "") == "nearest"),
    )
    for kind, base, function, fits in functions:
        if fits and type(layer) is base:
            return Rewrite(kind, layer, "call", partial(function, layer))
    return None


def _reshape(layer: Any, original: Any, inputs: Any, **settings: Any) -> Any:
    sizes = layer.compute_output_shape(inputs.shape)[1:]
    return original(inputs, **settings) if None in sizes else load_keras().ops.reshape(inputs, (-1, *sizes))


def _flat(layer: Any, original: Any, inputs: Any, **settings: Any) -> Any:
    """A Dense that sees sequences and images as rows of (batch * positions, channels)."""
    keras, sizes = load_keras(), tuple(inputs.shape[1:])
    if len(sizes) < 2 or None in sizes:
        return original(inputs, **settings)
    outputs = original(keras.ops.reshape(inputs, (-1, sizes[-1])), **settings)
    return keras.ops.reshape(outputs, (-1, *sizes[:-1], layer.units))


def _nearest(layer: Any, original: Any, inputs: Any) -> Any:
    """An UpSampling2D that resizes where Keras's own repeats rows and columns: the same values."""
    first = layer.data_format == "channels_first"
    height, width = inputs.shape[2:] if first else inputs.shape[1:3]
    if height is None or width is None:
        return original(inputs)
    size = (height * layer.size[0], width * layer.size[1])
    resize = load_keras().ops.image.resize
    return resize(inputs, size, interpolation="nearest", data_format=layer.data_format)
