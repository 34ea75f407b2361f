"""Layers that compute their shapes from the input's at run time, written so that only the batch is open.

After a resize LiteRT keeps a stale size of what is computed from a SHAPE operator: such models cannot run batches.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from litelambda.stages.backend import load_keras


def with_constant_shapes(layer: Any) -> Any:
    """Copy a layer without its weights so that its sizes are constants; None for layers that need no such copy."""
    keras = load_keras()
    if type(layer) is keras.layers.Lambda:  # whose function, if it has no name, Keras would refuse to read back
        return keras.layers.Lambda(
            layer.function,
            layer._output_shape,
            layer.mask,
            dict(layer.arguments),
            name=layer.name,
            dtype=layer.dtype_policy,
        )
    if type(layer) is keras.layers.Dense:
        return _flat_dense().from_config(layer.get_config())
    if type(layer) is keras.layers.UpSampling2D and layer.interpolation == "nearest":
        return _nearest().from_config(layer.get_config())
    return None


@cache
def _flat_dense() -> Any:
    keras = load_keras()
    base: Any = keras.layers.Dense

    class FlatDense(base):  # type: ignore[misc]  # Keras has no types
        """A Dense that sees sequences and images as rows of (batch * positions, channels)."""

        def call(self, inputs: Any, training: Any = None) -> Any:
            sizes = tuple(inputs.shape[1:])
            if len(sizes) < 2 or None in sizes:
                return super().call(inputs, training=training)
            outputs = super().call(keras.ops.reshape(inputs, (-1, sizes[-1])), training=training)
            return keras.ops.reshape(outputs, (-1, *sizes[:-1], self.units))

    return FlatDense


@cache
def _nearest() -> Any:
    keras = load_keras()
    base: Any = keras.layers.UpSampling2D

    class Nearest(base):  # type: ignore[misc]  # Keras has no types
        """An UpSampling2D that resizes where Keras's own repeats rows and columns: the same values."""

        def call(self, inputs: Any) -> Any:
            first = self.data_format == "channels_first"
            height, width = inputs.shape[2:] if first else inputs.shape[1:3]
            if height is None or width is None:
                return super().call(inputs)
            size = (height * self.size[0], width * self.size[1])
            return keras.ops.image.resize(inputs, size, interpolation="nearest", data_format=self.data_format)

    return Nearest
