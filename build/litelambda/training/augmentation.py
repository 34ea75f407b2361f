"""Augmentation: random changes to training rows, made in the input pipeline and never part of the model."""

from __future__ import annotations

from typing import Any

from litelambda.common.errors import TrainError
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.recipe.training import Augmentation


def augment(rows: Any, settings: Augmentation, seed: Any) -> Any:
    """Augment a batch of rows.

    Args:
        rows: float32, (rows, …); images as (rows, height, width, channels).
        settings: the recipe's `train.augmentation`.
        seed: two integers; the same ones make the same changes.

    Raises:
        TrainError: flips and shifts are set for rows that are not images.
    """
    tf = load_tensorflow()
    if (settings.flip_horizontal or settings.shift) and len(rows.shape) != 4:
        raise TrainError(
            f"train.augmentation: flip_horizontal and shift need images of height, width and channels, but rows have "
            f"{len(rows.shape) - 1} dimensions: set data.reshape, or use only noise"
        )
    if settings.flip_horizontal:
        rows = tf.where(_uniform(rows, seed, 0)[:, tf.newaxis, tf.newaxis, tf.newaxis] < 0.5, rows, rows[:, :, ::-1])
    if settings.shift:
        rows = _shift(rows, settings.shift, seed)
    if settings.noise:
        rows += tf.random.stateless_normal(tf.shape(rows), seed, stddev=settings.noise)
    return rows


def _shift(rows: Any, share: float, seed: Any) -> Any:
    """Move every image by its own number of pixels."""
    tf = load_tensorflow()
    for axis in (1, 2):
        rows = tf.transpose(rows, [0, 2, 1, 3])  # two transpositions restore the order of the axes
        size = rows.shape[1]
        reach = max(1, round(size * share))
        padded = tf.pad(rows, [[0, 0], [reach, reach], [0, 0], [0, 0]])
        start = tf.cast(_uniform(rows, seed, axis) * (2 * reach + 1), tf.int32)
        rows = tf.gather(padded, start[:, tf.newaxis] + tf.range(size), axis=1, batch_dims=1)
    return rows


def _uniform(rows: Any, seed: Any, purpose: int) -> Any:
    """A number in [0, 1) per row."""
    tf = load_tensorflow()
    return tf.random.stateless_uniform([tf.shape(rows)[0]], seed + purpose)
