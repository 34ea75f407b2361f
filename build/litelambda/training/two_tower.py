"""The recommender: two towers trained on interactions, and the model that is published of them.

A tower turns a row of category numbers into a vector: an embedding for each column, dense layers on top. They are
trained together: of the items in a batch, each user's own is to have the largest dot product. The others are the
negatives; popular items are in more batches, which is corrected by the logarithm of their frequency.

Source: Yi et al. 2019, Sampling-Bias-Corrected Neural Modeling for Large Corpus Item Recommendations.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.progress import ReportProgress
from litelambda.data.interactions import Interactions
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.models import TwoTowerModel
from litelambda.recipe.training import Train
from litelambda.training.fit import Objective, TrainingPlan, fit, seed_everything
from litelambda.training.train import Trained, early_stopping

ITEMS, SCORES = "items", "scores"
"""Outputs of the published model: the best items' numbers, and their dot products, the best first."""

USERS = "user"
"""Name of the tower of the user's side."""

_MAX_CODE, _ZERO_CODE = 127, 128
_NEVER = -1e9
_CHUNK = 8192


def train_two_tower(section: TwoTowerModel, settings: Train, data: Interactions, progress: ReportProgress) -> Trained:
    """Train both towers, and make the model to publish: a user's row in, the best items of the catalogue out.

    Args:
        section: the recipe's `model`.
        settings: the recipe's `train`.
        data: from the data stage.
        progress: called with the share that is done and what is being done.

    Raises:
        TrainError: Keras refused, or the loss became NaN.
    """
    keras = load_keras()
    seed_everything(settings.seed)
    users = _tower(section, data.user_sizes, USERS)
    items = _tower(section, data.item_sizes, "item")
    width = len(data.user_sizes)
    pair = keras.Input((width + len(data.item_sizes),), dtype="int32", name="pair")
    of_user, of_item = users(pair[:, :width]), items(pair[:, width:])
    together = keras.Model(pair, keras.ops.matmul(of_user, keras.ops.transpose(of_item)), name="two_tower")
    plan = TrainingPlan(
        settings,
        settings.epochs,
        schedule=settings.schedule,
        warmup_epochs=settings.warmup_epochs,
        callbacks=early_stopping(settings),
        objective=_objective(data),
    )
    history = fit(together, data.pairs, plan, progress)
    vectors = items.predict(data.item_rows, batch_size=_CHUNK, verbose=0)
    return Trained(published_model(users, vectors, section), history)


def published_model(users: Any, vectors: NDArray[np.float32], section: TwoTowerModel) -> Any:
    """A user's row in, the best items out.

    Args:
        users: the tower of the user's side.
        vectors: of the items, (items, dimension).
        section: the recipe's `model`.
    """
    keras = load_keras()
    row = keras.Input(users.inputs[0].shape[1:], dtype="int32", name=section.input_name)
    catalogue = keras.layers.Dense(len(vectors), use_bias=False, name="catalogue")
    scores, items = keras.ops.top_k(catalogue(users(row)), min(section.top_k, len(vectors)))
    model = keras.Model(row, {ITEMS: keras.ops.cast(items, "int32"), SCORES: scores}, name="recommender")
    catalogue.set_weights([vectors.T])
    return model


def with_int8_tables(model: Any, section: TwoTowerModel, data: Interactions) -> Any:
    """A copy of a published model whose embedding tables are int8, with a scale for each category.

    Args:
        model: from `published_model`.
        section: the recipe's `model`.
        data: from the data stage.
    """
    users = model.get_layer(USERS)
    tower = _tower(section, data.user_sizes, USERS, in_bytes=True)
    for layer in users.layers:
        weights = layer.get_weights()
        if isinstance(layer, load_keras().layers.Embedding):
            scales = np.maximum(np.abs(weights[0]).max(axis=1, keepdims=True), np.finfo(np.float32).tiny) / _MAX_CODE
            tower.get_layer(f"{layer.name}_codes").set_weights(
                [(np.rint(weights[0] / scales) + _ZERO_CODE).astype(np.uint8)]
            )
            tower.get_layer(f"{layer.name}_scales").set_weights([scales])
        elif weights:
            tower.get_layer(layer.name).set_weights(weights)
    return published_model(tower, model.get_layer("catalogue").get_weights()[0].T, section)


def _tower(section: TwoTowerModel, sizes: list[int], side: str, *, in_bytes: bool = False) -> Any:
    """From a row of category numbers to a vector."""
    keras = load_keras()
    row = keras.Input((len(sizes),), dtype="int32", name=f"{side}_row")
    embed = _byte_embedding if in_bytes else _embedding
    embedded = [embed(size, section.dimension, f"{side}_{place}", row[:, place]) for place, size in enumerate(sizes)]
    if section.hidden:
        vector = keras.layers.Concatenate(name=f"{side}_features")(embedded) if len(embedded) > 1 else embedded[0]
        for number, units in enumerate(section.hidden, start=1):
            vector = keras.layers.Dense(units, activation="relu", name=f"{side}_dense_{number}")(vector)
        vector = keras.layers.Dense(section.dimension, name=f"{side}_vector")(vector)
    else:
        vector = keras.layers.Add(name=f"{side}_vector")(embedded) if len(embedded) > 1 else embedded[0]
    return keras.Model(row, vector, name=side)


def _embedding(size: int, dimension: int, name: str, numbers: Any) -> Any:
    return load_keras().layers.Embedding(size, dimension, name=name)(numbers)


def _byte_embedding(size: int, dimension: int, name: str, numbers: Any) -> Any:
    """The same of codes in a byte each, times the category's scale. Keras takes "int8" for a policy of its own."""
    layers, ops = load_keras().layers, load_keras().ops
    codes = layers.Embedding(
        size, dimension, embeddings_initializer="zeros", dtype="uint8", trainable=False, name=f"{name}_codes"
    )
    scales = layers.Embedding(size, 1, name=f"{name}_scales")
    return (ops.cast(codes(numbers), "float32") - _ZERO_CODE) * scales(numbers)


def _objective(data: Interactions) -> Objective:
    """Each user's own item against those of the other rows of the batch, without what is the same item."""
    ops = load_keras().ops
    train, validation = data.pairs.train, data.pairs.validation
    counts = np.bincount(train.y, minlength=len(data.item_names))
    log_frequency = np.log(np.maximum(counts, 1) / len(train)).astype(np.float32)

    def loss(numbers: Any, products: Any) -> Any:
        numbers = ops.reshape(ops.cast(numbers, "int32"), (-1,))
        same = ops.cast(numbers[:, None] == numbers[None, :], "float32") - ops.eye(ops.shape(products)[0])
        logits = products - ops.take(ops.convert_to_tensor(log_frequency), numbers)[None, :] + same * _NEVER
        own = ops.arange(ops.shape(products)[0], dtype="int32")
        return ops.sparse_categorical_crossentropy(own, logits, from_logits=True)

    return Objective(loss, [], train.y, None if validation is None else validation.y)
