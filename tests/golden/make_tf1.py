"""Write tf1.zip: .h5 files of TensorFlow 1.15, with inputs and what it predicts for them.

    pip install tensorflow==1.15.5 "protobuf<3.21" "h5py<3"    # for Python 3.7, in an environment of their own
    python tests/golden/make_tf1.py

Weights are random ones.
"""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

ARCHIVE = Path(__file__).with_name("tf1.zip")
ROWS = 6
keras = tf.keras
layers, Input = keras.layers, keras.Input


def old_pictures() -> Any:
    """A Sequential model without an InputLayer, and initializers with a dtype."""
    return keras.Sequential([
        layers.Conv2D(4, 3, input_shape=(12, 12, 3), padding="same", use_bias=False), layers.BatchNormalization(),
        layers.ReLU(6.0), layers.DepthwiseConv2D(3), layers.SeparableConv2D(3, 3), layers.LeakyReLU(alpha=0.1),
        layers.Conv2DTranspose(3, 3, strides=2, padding="same"), layers.UpSampling2D(2, interpolation="bilinear"),
        layers.GlobalAveragePooling2D(), layers.Dense(2, kernel_initializer="identity"),
    ])  # fmt: skip


def old_sequences() -> Any:
    """Recurrent layers, and the `hard_sigmoid` of Keras 2."""
    return keras.Sequential([
        layers.Embedding(20, 4, input_length=9, mask_zero=True), layers.LSTM(4, return_sequences=True),
        layers.Bidirectional(layers.GRU(3, return_sequences=True)), layers.TimeDistributed(layers.Dense(3)),
        layers.SimpleRNN(3), layers.Dense(8, activation="hard_sigmoid"), layers.Dense(1),
    ])  # fmt: skip


def old_graph() -> Any:
    """A residual block, a gate for each channel, and a model in the model."""
    given = Input((8, 8, 4))
    hidden = layers.BatchNormalization()(layers.Conv2D(4, 3, padding="same", kernel_regularizer="l2")(given))
    hidden = layers.Add()([layers.Activation("relu")(hidden), layers.Conv2D(4, 1)(given)])
    gate = layers.Dense(4, activation="sigmoid")(layers.Reshape((1, 1, 4))(layers.GlobalAveragePooling2D()(hidden)))
    hidden = layers.Multiply()([hidden, gate])
    head = keras.Sequential([layers.Conv2D(3, 2, input_shape=(8, 8, 4)), layers.Flatten(), layers.Dense(3)])
    found = head(hidden)
    return keras.Model(given, [layers.Dense(2)(found), layers.Concatenate()([found, layers.Flatten()(hidden)])])


def old_attention() -> Any:
    """With `causal`, which Keras 3 has dropped."""
    query, memory = Input((4, 6)), Input((5, 6))
    attended = layers.Attention()([query, memory])
    return keras.Model([query, memory], layers.Dense(2)(layers.GlobalMaxPooling1D()(attended)))


if __name__ == "__main__":
    draw = np.random.RandomState(1)
    with zipfile.ZipFile(ARCHIVE, "w", zipfile.ZIP_DEFLATED) as archive, tempfile.TemporaryDirectory() as folder:
        for make in (old_pictures, old_sequences, old_graph, old_attention):
            model, name = make(), make.__name__
            model.set_weights([
                draw.uniform(0.2, 1.0, weights.shape.as_list()) - 0.4 * ("variance" not in weights.name)
                for weights in model.weights
            ])  # fmt: skip
            if name == "old_sequences":
                inputs = [np.where(np.arange(9) < draw.randint(1, 10, (ROWS, 1)), draw.randint(1, 20, (ROWS, 9)), 0)]
            else:
                inputs = [draw.uniform(0, 1, (ROWS, *each.shape.as_list()[1:])) for each in model.inputs]
            inputs = [each.astype(np.float32) for each in inputs]
            answers = model.predict(inputs if len(inputs) > 1 else inputs[0])
            answers = answers if isinstance(answers, list) else [answers]
            named = [(f"input_{index}", each) for index, each in enumerate(inputs)]
            named += [(f"answer_{index}", each) for index, each in enumerate(answers)]
            content = io.BytesIO()
            np.savez(content, **dict(named))
            path = Path(folder, name + ".h5")
            model.save(str(path))
            for file, held in ((name + ".npz", content.getvalue()), (path.name, path.read_bytes())):
                archive.writestr(zipfile.ZipInfo(file), held, zipfile.ZIP_DEFLATED)
