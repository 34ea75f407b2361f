"""Small models, one for each family of layers, to see how each converts. Keras comes in as an argument, loaded late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

Make = Callable[[Any], Any]
"""Given the module `keras`, makes a model. Integers that go in are 0 to 7, strings are words of `WORDS`."""

WORDS = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen")
_VECTOR, _SEQUENCE, _IMAGE, _VOLUME = (16,), (12, 8), (16, 16, 4), (6, 6, 6, 2)


def _stack(
    keras: Any, shape: tuple[int | None, ...], *layers: Any, dtype: str = "float32", batch: int | None = None
) -> Any:
    return keras.Sequential([keras.Input(shape, batch_size=batch, dtype=dtype, name="x"), *layers])


def _layer(name: str, shape: tuple[int, ...], *args: Any, **kwargs: Any) -> Make:
    return lambda keras: _stack(keras, shape, getattr(keras.layers, name)(*args, **kwargs))


def _activation(name: str) -> Make:
    """Between two Dense layers, where a float island would cost a conversion on each side."""
    return lambda keras: _stack(
        keras, _VECTOR, keras.layers.Dense(16), keras.layers.Activation(name), keras.layers.Dense(4)
    )


def _normalization(name: str, **kwargs: Any) -> Make:
    return lambda keras: _stack(
        keras, _IMAGE, keras.layers.Conv2D(8, 3), getattr(keras.layers, name)(**kwargs), keras.layers.Conv2D(4, 1)
    )


def _recurrent(name: str, steps: int | None = 12, batch: int | None = None, **kwargs: Any) -> Make:
    def make(keras: Any) -> Any:
        return _stack(keras, (steps, 8), getattr(keras.layers, name)(8, **kwargs), keras.layers.Dense(4), batch=batch)

    return make


def _bidirectional(keras: Any) -> Any:
    layers = keras.layers
    return _stack(keras, _SEQUENCE, layers.Bidirectional(layers.LSTM(8)), layers.Dense(4))


def _masked(keras: Any) -> Any:
    return _stack(keras, _SEQUENCE, keras.layers.Masking(), keras.layers.LSTM(8), keras.layers.Dense(4))


def _time_distributed(keras: Any) -> Any:
    return _stack(keras, (4, *_IMAGE), keras.layers.TimeDistributed(keras.layers.Conv2D(4, 3)))


def _attention(name: str, *args: Any, **kwargs: Any) -> Make:
    def make(keras: Any) -> Any:
        x = keras.Input(_SEQUENCE, name="x")
        return keras.Model(x, getattr(keras.layers, name)(*args, **kwargs)(*_arguments(name, x)))

    return make


def _arguments(name: str, x: Any) -> tuple[Any, ...]:
    return (x, x) if name in ("MultiHeadAttention", "GroupQueryAttention") else ([x, x],)


def _transformer(keras: Any) -> Any:
    layers, x = keras.layers, keras.Input(_SEQUENCE, name="x")
    attended = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 4)(x, x))
    fed = layers.Dense(8)(layers.Dense(16, "gelu")(attended))
    return keras.Model(x, layers.LayerNormalization()(attended + fed))


def _embedding(keras: Any) -> Any:
    layers = keras.layers
    return _stack(keras, (12,), layers.Embedding(8, 8), layers.GlobalAveragePooling1D(), layers.Dense(4), dtype="int32")


def _residual(keras: Any) -> Any:
    layers, x = keras.layers, keras.Input(_IMAGE, name="x")
    hidden = layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    return keras.Model(x, layers.Dense(4)(layers.Flatten()(layers.ReLU()(layers.Add()([x, hidden])))))


def _several_inputs(keras: Any) -> Any:
    layers = keras.layers
    left, right = keras.Input(_VECTOR, name="left"), keras.Input(_IMAGE, name="right")
    joined = layers.Concatenate()([left, layers.GlobalMaxPooling2D()(layers.Conv2D(8, 3)(right))])
    return keras.Model([left, right], layers.Dense(4, "softmax")(joined))


def _several_outputs(keras: Any) -> Any:
    layers, x = keras.layers, keras.Input(_VECTOR, name="x")
    hidden = layers.Dense(16, "relu")(x)
    return keras.Model(x, [layers.Dense(4, "softmax", name="class")(hidden), layers.Dense(1, name="score")(hidden)])


def _nested(keras: Any) -> Any:
    layers, x = keras.layers, keras.Input(_IMAGE, name="x")
    base = _stack(keras, _IMAGE, layers.Conv2D(4, 3, activation="relu"), layers.Flatten())
    return keras.Model(x, layers.Dense(4)(base(x)))


def _shared(keras: Any) -> Any:
    layers = keras.layers
    left, right = keras.Input(_VECTOR, name="left"), keras.Input(_VECTOR, name="right")
    tower = layers.Dense(8, "relu")
    return keras.Model([left, right], layers.Dot(axes=1)([tower(left), tower(right)]))


def _u_net(keras: Any) -> Any:
    layers, x = keras.layers, keras.Input(_IMAGE, name="x")
    down = layers.Conv2D(8, 3, padding="same", activation="relu")(x)
    bottom = layers.Conv2D(16, 3, padding="same", activation="relu")(layers.MaxPooling2D()(down))
    up = layers.Conv2DTranspose(8, 2, strides=2)(bottom)
    return keras.Model(x, layers.Conv2D(1, 1, activation="sigmoid")(layers.Concatenate()([down, up])))


def _normalized(keras: Any) -> Any:
    layer = keras.layers.Normalization(mean=[0.5] * 16, variance=[0.1] * 16)
    return _stack(keras, _VECTOR, layer, keras.layers.Dense(4))


def _lambda(expression: Callable[[Any], Callable[[Any], Any]]) -> Make:
    def make(keras: Any) -> Any:
        return _stack(keras, _VECTOR, keras.layers.Lambda(expression(keras.ops)), keras.layers.Dense(4))

    return make


def _words(name: str, shape: tuple[int, ...] = (1,), **kwargs: Any) -> Make:
    def make(keras: Any) -> Any:
        return _stack(keras, shape, getattr(keras.layers, name)(**kwargs), dtype="string")

    return make


def _integers(name: str, **kwargs: Any) -> Make:
    return lambda keras: _stack(
        keras, (4,), getattr(keras.layers, name)(**kwargs), keras.layers.Dense(4), dtype="int32"
    )


LAYERS: dict[str, dict[str, Make]] = {
    "dense and convolutions": {
        "Dense": _layer("Dense", _VECTOR, 8, activation="relu"),
        "Dense over a sequence": _layer("Dense", _SEQUENCE, 8),
        "EinsumDense": _layer("EinsumDense", _SEQUENCE, "abc,cd->abd", (None, 8)),
        "Conv1D": _layer("Conv1D", _SEQUENCE, 8, 3, padding="same"),
        "Conv1D, causal, dilated": _layer("Conv1D", _SEQUENCE, 8, 3, padding="causal", dilation_rate=2),
        "Conv2D": _layer("Conv2D", _IMAGE, 8, 3, strides=2, padding="same"),
        "Conv2D, dilated": _layer("Conv2D", _IMAGE, 8, 3, dilation_rate=2),
        "Conv2D, groups": _layer("Conv2D", _IMAGE, 8, 3, groups=2),
        "Conv3D": _layer("Conv3D", _VOLUME, 4, 3),
        "DepthwiseConv1D": _layer("DepthwiseConv1D", _SEQUENCE, 3),
        "DepthwiseConv2D": _layer("DepthwiseConv2D", _IMAGE, 3),
        "SeparableConv1D": _layer("SeparableConv1D", _SEQUENCE, 8, 3),
        "SeparableConv2D": _layer("SeparableConv2D", _IMAGE, 8, 3),
        "Conv1DTranspose": _layer("Conv1DTranspose", _SEQUENCE, 8, 3, strides=2),
        "Conv2DTranspose": _layer("Conv2DTranspose", _IMAGE, 8, 3, strides=2),
        "Conv3DTranspose": _layer("Conv3DTranspose", _VOLUME, 4, 3, strides=2),
        "TimeDistributed(Conv2D)": _time_distributed,
    },
    "pooling, resizing and shapes": {
        "MaxPooling1D": _layer("MaxPooling1D", _SEQUENCE),
        "MaxPooling2D": _layer("MaxPooling2D", _IMAGE),
        "MaxPooling3D": _layer("MaxPooling3D", _VOLUME),
        "AveragePooling1D": _layer("AveragePooling1D", _SEQUENCE, 2),
        "AveragePooling2D": _layer("AveragePooling2D", _IMAGE, 2),
        "AveragePooling3D": _layer("AveragePooling3D", _VOLUME, 2),
        "GlobalAveragePooling2D": _layer("GlobalAveragePooling2D", _IMAGE),
        "GlobalMaxPooling2D": _layer("GlobalMaxPooling2D", _IMAGE),
        "UpSampling1D": _layer("UpSampling1D", _SEQUENCE),
        "UpSampling2D": _layer("UpSampling2D", _IMAGE),
        "UpSampling2D, bilinear": _layer("UpSampling2D", _IMAGE, interpolation="bilinear"),
        "ZeroPadding2D": _layer("ZeroPadding2D", _IMAGE),
        "Cropping2D": _layer("Cropping2D", _IMAGE),
        "Flatten": _layer("Flatten", _IMAGE),
        "Reshape": _layer("Reshape", _IMAGE, (8, -1)),
        "Permute": _layer("Permute", _IMAGE, (3, 1, 2)),
        "RepeatVector": _layer("RepeatVector", _VECTOR, 3),
    },
    "normalization": {
        "BatchNormalization": _normalization("BatchNormalization"),
        "LayerNormalization": _normalization("LayerNormalization"),
        "GroupNormalization": _normalization("GroupNormalization", groups=2),
        "RMSNormalization": _normalization("RMSNormalization"),
        "UnitNormalization": _normalization("UnitNormalization"),
        "SpectralNormalization": lambda keras: _stack(
            keras, _VECTOR, keras.layers.SpectralNormalization(keras.layers.Dense(4))
        ),
    },
    "activations": {
        **{
            name: _activation(name)
            for name in (
                "relu", "relu6", "leaky_relu", "elu", "selu", "celu", "gelu", "silu", "hard_silu", "mish", "softplus",
                "softsign", "exponential", "tanh", "sigmoid", "hard_sigmoid", "softmax", "log_softmax",
            )
        },
        "PReLU": lambda keras: _stack(
            keras, _IMAGE, keras.layers.Conv2D(8, 3), keras.layers.PReLU(shared_axes=[1, 2]), keras.layers.Conv2D(4, 1)
        ),
    },
    "sequences": {
        "Embedding": _embedding,
        "SimpleRNN": _recurrent("SimpleRNN"),
        "GRU": _recurrent("GRU"),
        "LSTM": _recurrent("LSTM"),
        "LSTM, unroll=True": _recurrent("LSTM", unroll=True),
        "LSTM, batch of 1": _recurrent("LSTM", batch=1),
        "LSTM, sequence of any length": _recurrent("LSTM", None),
        "LSTM, 300 steps, any batch": _recurrent("LSTM", 300),
        "LSTM, 300 steps, batch of 1": _recurrent("LSTM", 300, batch=1),
        "LSTM, stateful": _recurrent("LSTM", batch=1, stateful=True),
        "LSTM after Masking": _masked,
        "Bidirectional(LSTM)": _bidirectional,
        "ConvLSTM2D": _layer("ConvLSTM2D", (3, 8, 8, 2), 4, 3),
        "Attention": _attention("Attention"),
        "AdditiveAttention": _attention("AdditiveAttention"),
        "MultiHeadAttention": _attention("MultiHeadAttention", 2, 4),
        "GroupQueryAttention": _attention("GroupQueryAttention", 4, 2, 1),
        "transformer block": _transformer,
    },
    "preprocessing": {
        "Rescaling": _layer("Rescaling", _IMAGE, 2.0, -1.0),
        "Normalization": _normalized,
        "Resizing": _layer("Resizing", _IMAGE, 8, 8),
        "CenterCrop": _layer("CenterCrop", _IMAGE, 8, 8),
        "RandomFlip, of training only": lambda keras: _stack(
            keras, _IMAGE, keras.layers.RandomFlip(), keras.layers.Conv2D(4, 3)
        ),
        "Discretization": _layer("Discretization", _VECTOR, bin_boundaries=[0.25, 0.5, 0.75]),
        "CategoryEncoding": _integers("CategoryEncoding", num_tokens=8, output_mode="multi_hot"),
        "IntegerLookup": _integers("IntegerLookup", vocabulary=list(range(8)), output_mode="multi_hot"),
        "Hashing": _integers("Hashing", num_bins=8, output_mode="multi_hot"),
        "StringLookup": _words("StringLookup", vocabulary=list(WORDS)),
        "TextVectorization": _words("TextVectorization", (), vocabulary=list(WORDS), output_sequence_length=4),
        "MelSpectrogram": _layer("MelSpectrogram", (512,), fft_length=128, sequence_stride=64, num_mel_bins=16),
    },
    "whole graphs": {
        "several inputs": _several_inputs,
        "several outputs": _several_outputs,
        "shared layer": _shared,
        "residual": _residual,
        "nested model": _nested,
        "U-Net": _u_net,
        "Lambda (x * x)": _lambda(lambda _: lambda x: x * x),
        "Lambda (erf)": _lambda(lambda ops: ops.erf),
    },
}  # fmt: skip
"""The models by family and name."""
