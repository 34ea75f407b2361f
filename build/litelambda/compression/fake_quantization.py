"""Fake quantization: activations are rounded to their int8 grid during training, so that weights adapt to it.

The output of a layer is rounded to the 256 values that int8 will have for it; gradients pass straight through. It is
placed where the converter will quantize: after every operator, before an activation that is a separate operator, and
not between a layer and a batch normalization or ReLU that is fused into it. Only a copy is fake-quantized: its weights
are copied back to the model that is exported.

Source: Jacob et al. 2018, "Quantization and training of neural networks for efficient integer-arithmetic-only
inference", section 3.
"""

from __future__ import annotations

from typing import Any

from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import copy_layer, copy_state
from litelambda.keras_tools.graph import followers
from litelambda.keras_tools.layers import read, serialize

_MIN_SHARE = 0.01
"""Of a new batch in the ranges: a mean of the first 100 batches, then an exponential moving average with a smoothing
close to 1, as in Jacob et al. 2018, section 3.1."""
_MIN_RANGE = 1e-6  # where all values are zero
_FUSED = ("linear", "relu", "relu6")
_FUSED_LAYERS = ("BatchNormalization", "ReLU")
_FIXED_RANGE = ("softmax", "sigmoid", "tanh")  # TFLite specifies the int8 grid of these operators
_SAME_GRID = (  # their outputs have the grid of their inputs
    "Dropout", "SpatialDropout1D", "SpatialDropout2D", "GaussianNoise", "GaussianDropout", "Identity",
    "Flatten", "Reshape", "Permute", "ZeroPadding1D", "ZeroPadding2D", "Cropping1D", "Cropping2D", "UpSampling1D",
    "MaxPooling1D", "MaxPooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
)  # fmt: skip


def fake_quantized(model: Any) -> tuple[Any, dict[str, Any]]:
    """Copy a model and fake-quantize the activations of the copy, except inside nested models.

    Args:
        model: Sequential or Functional.

    Returns:
        The copy, with its own weights, and the quantizing layers by the name of the layer that they follow.
    """
    keras = load_keras()
    quantizers: dict[str, Any] = {}
    done: dict[int, Any] = {}
    names = {layer.name: layer for layer in model.layers}

    def quantize(name: str, tensor: Any) -> Any:
        if not hasattr(tensor, "dtype") or "float" not in tensor.dtype:
            return tensor
        quantizers.setdefault(name, _make_quantizer(f"{name}_range"))
        return quantizers[name](tensor)

    def quantize_input(tensor: Any) -> Any:
        source = getattr(tensor, "_keras_history", None)
        if source is None or not isinstance(source.operation, keras.layers.InputLayer):
            return tensor
        if id(tensor) not in done:
            done[id(tensor)] = quantize(source.operation.name, tensor)
        return done[id(tensor)]

    def call(layer: Any, *arguments: Any, **settings: Any) -> Any:
        output = layer(*keras.tree.map_structure(quantize_input, arguments), **settings)
        original = names.get(layer.name)
        if original is None:  # nodes of keras.ops are not layers
            return output
        activation = _own_activation(original)
        if activation:
            output = keras.layers.Activation(activation)(quantize(f"{layer.name}_sum", output))
        return quantize(layer.name, output) if _is_quantized(model, original) else output

    functional = keras.Model(_one_or_all(model.inputs), _one_or_all(model.outputs), name=model.name)
    copy = keras.models.clone_model(functional, clone_function=_without_activation, call_function=call)
    copy_weights(model, copy)
    return copy, quantizers


def _without_activation(layer: Any) -> Any:
    """Copy a layer, without its activation where the converter makes that a separate operator."""
    if _own_activation(layer):
        return load_keras().layers.deserialize(serialize(layer, activation="linear"))
    return copy_layer(layer)


def _one_or_all(tensors: list[Any]) -> Any:
    """Tensors as `keras.Model` takes them; a Sequential model that was never called has no `input`."""
    return tensors[0] if len(tensors) == 1 else tensors


def copy_weights(source: Any, target: Any) -> None:
    """Copy the state of every layer to the layer of the same name."""
    theirs = {layer.name: layer for layer in target.layers}
    for layer in source.layers:
        if layer.name in theirs:
            copy_state(layer, theirs[layer.name])


def ranges(quantizers: dict[str, Any]) -> dict[str, list[float]]:
    """The lowest and the highest value of each grid after training."""
    return {name: [float(read(each.low)), float(read(each.high))] for name, each in quantizers.items()}


def _own_activation(layer: Any) -> str | None:
    """The name of a layer's activation where the converter makes it a separate operator."""
    keras = load_keras()
    if getattr(layer, "kernel", None) is None or not callable(getattr(layer, "activation", None)):
        return None
    name = keras.activations.serialize(layer.activation)
    return name if isinstance(name, str) and name not in _FUSED else None


def _is_quantized(model: Any, layer: Any) -> bool:
    """Whether the output of a layer gets its own grid."""
    keras = load_keras()
    activation = getattr(layer, "activation", None)
    fixed = callable(activation) and keras.activations.serialize(activation) in _FIXED_RANGE
    if fixed or isinstance(layer, keras.layers.Softmax) or type(layer).__name__ in _SAME_GRID:
        return False
    after = followers(model, layer)
    return not (len(after) == 1 and _is_fused(after[0]))


def _is_fused(layer: Any) -> bool:
    if type(layer).__name__ == "Activation":
        return load_keras().activations.serialize(layer.activation) in _FUSED
    return type(layer).__name__ in _FUSED_LAYERS


def _make_quantizer(name: str) -> Any:
    keras = load_keras()
    ops = keras.ops

    class FakeQuantizer(keras.layers.Layer):  # type: ignore[misc, name-defined] # Keras has no types
        """Rounds to 256 values between the smoothed extremes of the batches of the training."""

        def build(self, _: object) -> None:
            self.supports_masking = True
            self.low, self.high, self.seen = (
                self.add_weight(shape=(), initializer="zeros", trainable=False, dtype="float32", name=each)
                for each in ("low", "high", "seen")
            )

        def call(self, inputs: Any, training: bool = False) -> Any:
            values = ops.cast(inputs, "float32")
            if training:
                self._update_range(ops.stop_gradient(values))
            low = ops.convert_to_tensor(self.low)
            high = ops.maximum(self.high, low + _MIN_RANGE)
            grid = keras.quantizers.fake_quant_with_min_max_vars(values, low, high, num_bits=8)
            inside = ops.clip(values, low, high)  # clipped values have no gradient
            return ops.cast(inside + ops.stop_gradient(grid - inside), inputs.dtype)

        def _update_range(self, values: Any) -> None:
            self.seen.assign(self.seen + 1)
            share = ops.maximum(1 / ops.convert_to_tensor(self.seen), _MIN_SHARE)
            for extreme, found in ((self.low, ops.min(values)), (self.high, ops.max(values))):
                # Zero must be on the grid.
                zero_or_beyond = ops.minimum(found, 0) if extreme is self.low else ops.maximum(found, 0)
                extreme.assign(extreme + share * (zero_or_beyond - extreme))

    return FakeQuantizer(name=name)
