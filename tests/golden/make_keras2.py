"""Write keras2.zip: files of Keras 2.15, each model as .h5 and .keras, with inputs and what Keras 2 predicts for them.

    pip install tensorflow==2.15.1 "numpy<2"    # in an environment of their own: the last TensorFlow with Keras 2
    python tests/golden/make_keras2.py

Weights are random ones, those of the batch normalizations included.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

ARCHIVE = Path(__file__).with_name("keras2.zip")
ROWS = 6
keras = tf.keras
layers, Input = keras.layers, keras.Input


def pictures() -> Any:
    """Convolutions whose configs have keywords that Keras 3 has dropped, and augmentation."""
    return keras.Sequential([
        Input((12, 12, 3)), layers.Rescaling(1 / 127.5, -1), layers.RandomCrop(10, 9), layers.Resizing(8, 8),
        layers.RandomFlip(), layers.RandomZoom(0.1), layers.SpatialDropout2D(0.2),
        layers.Conv2DTranspose(4, 3, 2, padding="same"),
        layers.BatchNormalization(), layers.ReLU(6.0), layers.SeparableConv2D(3, 3, dilation_rate=2),
        layers.DepthwiseConv2D(3, depth_multiplier=2), layers.LeakyReLU(alpha=0.1), layers.GroupNormalization(2),
        layers.UpSampling2D(2, interpolation="bilinear"), layers.GlobalAveragePooling2D(), layers.Dense(2),
    ])  # fmt: skip


def sequences() -> Any:
    """Recurrent layers with `time_major`, masks, and the `hard_sigmoid` of Keras 2."""
    return keras.Sequential([
        Input((9,)), layers.Embedding(20, 4, mask_zero=True),
        layers.LSTM(4, recurrent_activation="hard_sigmoid", return_sequences=True),
        layers.Bidirectional(layers.GRU(3, return_sequences=True)), layers.TimeDistributed(layers.Dense(3)),
        layers.SimpleRNN(3), layers.Dense(8, "hard_sigmoid"), layers.Dense(1),
    ])  # fmt: skip


def translation() -> Any:
    """An encoder whose last states are a decoder's first, and both directions of another."""
    source, target = Input((5, 3)), Input((4, 3))
    _, *states = layers.LSTM(4, return_state=True)(source)
    decoded = layers.LSTM(4, return_sequences=True)(target, initial_state=states)
    both = layers.Bidirectional(layers.GRU(4))(target, initial_state=states)
    return keras.Model([source, target], [layers.Dense(2)(decoded), both])


def convolutions_in_time() -> Any:
    """Of one and two dimensions."""
    frames, signal = Input((3, 6, 6, 1)), Input((8, 2))
    first = layers.Flatten()(layers.ConvLSTM2D(2, 3)(frames))
    second = layers.Conv1DTranspose(2, 2)(layers.SeparableConv1D(3, 3)(layers.SpatialDropout1D(0.1)(signal)))
    return keras.Model([frames, signal], layers.Concatenate()([first, layers.Flatten()(second)]))


def functions() -> Any:
    """Functions of TensorFlow and operators on a Functional model's tensors."""
    table, row = Input((6, 4), name="table"), Input((4,), name="row")
    joined = tf.concat([table[..., 0], row], -1)
    rest = 1 - joined
    left, right = tf.split(tf.where(rest > 0, rest, 0.0), 2, 1)
    outputs = [
        table[:, 1:4, tf.newaxis], left**2, keras.backend.mean(right, axis=1), rest * joined, row / 3, -row,
        tf.image.resize(tf.reshape(table, (-1, 6, 4, 1)), (3, 2)), tf.stack(tf.unstack(table, axis=1), 1),
        keras.backend.batch_dot(table, keras.backend.permute_dimensions(table, (0, 2, 1))), tf.nn.relu(rest),
        tf.reduce_max(table, [1, 2]), layers.Dense(2)(tf.math.subtract(row, 0.5)),
    ]  # fmt: skip
    return keras.Model([table, row], outputs)


def nested() -> Any:
    """Models in a model, called twice: a Sequential one and one with two outputs."""
    left, right = Input((4,), name="left"), Input((4,), name="right")
    tower = keras.Sequential([layers.Dense(3, "relu"), layers.LayerNormalization()], name="tower")
    hidden = Input((3,))
    inner = keras.Model(hidden, [layers.Dense(2)(hidden), layers.Dense(1)(hidden)], name="inner")
    first, second = tower(left), tower(right)
    joined = layers.Concatenate()([*inner(first), *inner(second)])
    heads = {name: layers.Dense(2, name=f"for_{name}")(joined) for name in ("second", "first")}
    return keras.Model([left, right], {"dot": layers.Dot(1)([first, second]), "all": joined, **heads})


def transfer() -> Any:
    """As in TensorFlow's tutorial: the arithmetic of preprocess_input, then a frozen base that is a model."""
    given = Input((8, 8, 3))
    picture = Input((8, 8, 3))
    norm = layers.BatchNormalization(name="norm")
    base = keras.Model(picture, norm(layers.Conv2D(4, 3, use_bias=False)(picture)), name="base")
    base.trainable = False
    scaled = keras.applications.mobilenet_v2.preprocess_input(given)
    return keras.Model(given, layers.Dense(1)(layers.GlobalAveragePooling2D()(base(scaled, training=False))))


def attention() -> Any:
    """Tensors among the keywords; the layers that make them are alike, and their order in the file is not Keras 3's."""
    query, memory = Input((4, 6)), Input((5, 6))
    value, key = layers.Dense(6, name="for_value"), layers.Dense(6, name="for_key")
    attended = layers.MultiHeadAttention(2, 3)(query, value=value(memory), key=key(memory))
    others = [layers.Attention()([query, memory]), layers.AdditiveAttention()([query, memory])]
    return keras.Model([query, memory], layers.GlobalMaxPooling1D()(layers.Concatenate()([attended, *others])))


def norms() -> Any:
    """Axes that are lists, and layers for tables."""
    cube, row = Input((3, 4, 5)), Input((4,))
    normalized = layers.Normalization()
    normalized.adapt(np.random.default_rng(0).normal(5, 3, (100, 4)).astype(np.float32))
    scaled = normalized(row)
    outputs = [
        layers.LayerNormalization(axis=[1, 2, 3])(cube), layers.BatchNormalization(axis=1)(cube),
        layers.BatchNormalization()(cube), layers.Discretization([0.25, 0.5, 0.75])(row), layers.ELU(0.5)(scaled),
        layers.PReLU()(scaled), layers.Softmax()(scaled), layers.UnitNormalization()(scaled),
    ]  # fmt: skip
    return keras.Model([cube, row], outputs)


def half() -> Any:
    """Of mixed precision."""
    keras.mixed_precision.set_global_policy("mixed_float16")
    model = keras.Sequential([Input((6,)), layers.Dense(4, "relu"), layers.Dense(2, dtype="float32")])
    keras.mixed_precision.set_global_policy("float32")
    return model


def code() -> Any:
    """A Lambda layer, which is Python's bytecode."""
    return keras.Sequential([Input((2,)), layers.Lambda(lambda x: x * 2)])


MODELS = (
    pictures, sequences, translation, convolutions_in_time, functions, nested, transfer, attention, norms, half, code,
)  # fmt: skip


def write() -> Iterator[tuple[str, bytes]]:
    """Each file's name, and what is in it."""
    draw = np.random.default_rng(1)
    for make in MODELS:
        keras.utils.set_random_seed(0)
        model, name = make(), make.__name__
        for weights in model.weights:
            if weights.dtype.is_floating and weights.name not in ("mean:0", "variance:0"):  # what was adapted
                weights.assign(draw.uniform(0.2, 1.0, weights.shape) - 0.4 * ("variance" not in weights.name))
        if name == "sequences":
            inputs = [np.where(np.arange(9) < draw.integers(1, 10, (ROWS, 1)), draw.integers(1, 20, (ROWS, 9)), 0)]
        else:
            high = 255 if name in ("pictures", "transfer") else 1
            inputs = [draw.uniform(0, high, (ROWS, *each.shape[1:])) for each in model.inputs]
        inputs = [each.astype(np.float32) for each in inputs]
        answers = model.predict(inputs, verbose=0)
        if isinstance(answers, dict):
            answers = [answers[key] for key in sorted(answers)]
        answers = answers if isinstance(answers, list) else [answers]
        content = io.BytesIO()
        np.savez(
            content,
            **{f"input_{index}": each for index, each in enumerate(inputs)},
            **{
                f"answer_{index}": each
                for index, each in enumerate(answers if isinstance(answers, list) else [answers])
            },
        )
        yield f"{name}.npz", content.getvalue()
        with tempfile.TemporaryDirectory() as folder:
            for suffix in (".h5",) if name == "functions" else (".h5", ".keras"):  # which has no form for `...`
                path = Path(folder, f"{name}{suffix}")
                model.save(path)
                yield path.name, path.read_bytes()


if __name__ == "__main__":
    with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in write():
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED, 9)
