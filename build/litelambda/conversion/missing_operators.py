"""Layers that Keras computes with operators that TFLite lacks, written with operators that it has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from litelambda.conversion.rewrites import Rewrite
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from litelambda.keras_tools.graph import overridden

_EXTREMES = ("argmax", "argmin")


def without_missing_operators(model: Any) -> Iterator[Rewrite]:
    """The rewrites of the parts of a model that TFLite has no operators for."""
    keras = load_keras()
    layers = model._flatten_layers()
    for layer in layers:
        if isinstance(layer, keras.layers.IntegerLookup):
            yield Rewrite("looked up by comparing", layer, "_lookup_dense", partial(_lookup, layer), needed=True)
        elif isinstance(layer, keras.layers.StringLookup):
            yield Rewrite("looked up in a known shape", layer, "_lookup_dense", _shaped, needed=True)
    if any(getattr(layer, "output_mode", "int") != "int" for layer in layers):
        yield Rewrite("encoded", keras.src.utils.numerical_utils, "encode_categorical_inputs", _encode)
    nodes = {type(node).__name__ for layer in layers for node in getattr(layer, "operations", ())}
    own_code = any(type(layer).__name__ == "Lambda" or not _is_kerass(layer) for layer in layers)
    for name in _EXTREMES:
        if own_code or name.capitalize() in nodes:
            yield Rewrite(f"with TensorFlow's own {name}", keras.src.backend.numpy, name, partial(_extreme, name))


def _is_kerass(layer: Any) -> bool:
    return type(layer).__module__.partition(".")[0] == "keras"


def _extreme(name: str, original: Any, x: Any, axis: int | None = None, keepdims: bool = False) -> Any:  # noqa: ARG001 - see `standing_in`
    """The index of an extreme; Keras's own compares the bits of floats, to order -0 before 0, which TFLite cannot."""
    tf = load_tensorflow()
    x = tf.convert_to_tensor(x)
    if axis is None:
        found = getattr(tf.math, name)(tf.reshape(x, [-1]), 0, output_type="int32")
        return tf.reshape(found, [1] * x.shape.rank) if keepdims else found
    found = getattr(tf.math, name)(x, axis, output_type="int32")
    return tf.expand_dims(found, axis) if keepdims else found


def _lookup(layer: Any, original: Any, inputs: Any) -> Any:
    """An integer table as a comparison with every key: TFLite has tables of strings only."""
    tf = load_tensorflow()
    with tf.init_scope():
        keys, values = (each.numpy() for each in layer.lookup_table.export())
    default = int(layer.lookup_table.default_value)

    def lookup(_: Any, tensor: Any) -> Any:
        same = tf.equal(tensor[..., tf.newaxis], keys)
        return default + tf.reduce_sum(tf.where(same, values - default, tf.zeros_like(values)), -1)

    with overridden(layer.lookup_table, "lookup", lookup):
        return original(inputs)


def _shaped(original: Any, inputs: Any) -> Any:
    """Restore the shape of looked-up values, which a flatbuffer loses: an output would pass for a single number."""
    sizes = inputs.shape[1:]
    return original(inputs) if None in sizes else load_tensorflow().reshape(original(inputs), [-1, *sizes])


def _encode(
    original: Any, inputs: Any, output_mode: str, depth: int, dtype: Any, sparse: bool = False, **settings: Any
) -> Any:
    """Categories as vectors, without Bincount and without shapes that are computed at run time."""
    rank = len(inputs.shape)
    if sparse or settings.get("count_weights") is not None or rank < 2 or None in inputs.shape[1:]:
        return original(inputs, output_mode, depth, dtype, sparse=sparse, **settings)
    tf = load_tensorflow()
    inputs = tf.cast(inputs, "int32") if inputs.dtype.is_floating else inputs
    if output_mode == "one_hot":
        squeezed = tf.reshape(inputs, [-1, *inputs.shape[1:-1]]) if inputs.shape[-1] == 1 else inputs
        return tf.one_hot(squeezed, depth, dtype=dtype)
    if output_mode in ("multi_hot", "count") and rank == 2:
        reduce = tf.reduce_max if output_mode == "multi_hot" else tf.reduce_sum
        return reduce(tf.one_hot(inputs, depth, dtype=dtype), 1)
    return original(inputs, output_mode, depth, dtype, sparse=sparse, **settings)
