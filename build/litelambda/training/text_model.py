"""The built-in network for text: what an n-gram of tokens looks like, wherever in the text it is.

Kim (2014), "Convolutional Neural Networks for Sentence Classification": convolutions over embedded tokens, and of each
filter its largest value in the text. All of it has int8 kernels, which means over a text's length do not.
"""

from __future__ import annotations

from typing import Any

from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import RawForm
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.models import TextModel


def text_model(section: TextModel, data: Dataset, head: Any) -> Any:
    """Make the network.

    Args:
        section: the recipe's `model`.
        data: of texts.
        head: the last layer.
    """
    keras = load_keras()
    layers, ops = keras.layers, keras.ops
    form = data.preprocessing
    assert isinstance(form, RawForm)  # noqa: S101 - the recipe was checked: builder = "text" needs format = "text"
    penalty = keras.regularizers.L1L2(section.l1, section.l2) if section.l1 or section.l2 else None
    ids = keras.Input(data.input_shape, name=section.input_name, dtype=form.dtype)
    x = layers.Embedding(form.document["vocabulary_size"], section.embedding, name="embedding")(ids)
    for number, filters in enumerate(section.filters, start=1):
        x = layers.Conv1D(
            filters, section.kernel_size, padding="same", kernel_regularizer=penalty, name=f"conv_{number}"
        )(x)
        x = layers.Activation(section.activation, name=f"activation_{number}")(x)
    # What fills a row up counts as 0, which no relu is below: a text's answer does not depend on the rest of its row.
    is_token = ops.cast(ops.not_equal(ids, form.document["padding"]), "float32")
    x = layers.Multiply(name="without_padding")([x, ops.expand_dims(is_token, -1)])
    x = layers.GlobalMaxPooling1D(name="largest")(x)
    for number, units in enumerate(section.dense, start=1):
        x = layers.Dense(units, activation=section.activation, kernel_regularizer=penalty, name=f"dense_{number}")(x)
    if section.dropout:
        x = layers.Dropout(section.dropout, name="dropout")(x)
    return keras.Model(ids, head(x), name=section.builder)
