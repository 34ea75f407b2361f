"""Augmentation: random changes to training rows, made in the input pipeline and never part of the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from litelambda.common.errors import TrainError
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.recipe.training import Augmentation

_LEAST = 1e-30  # so that two shares of zero, which a tiny alpha draws, are equal ones


def augment(rows: Any, settings: Augmentation, seed: Any) -> Any:
    """Augment a batch of rows.

    Args:
        rows: float32, (rows, …); images as (rows, height, width, channels).
        settings: the recipe's `train.augmentation`.
        seed: two integers; the same ones make the same changes.

    Raises:
        TrainError: changes of images are set for rows of another shape.
    """
    tf = load_tensorflow()
    of_images = [name for name in ("flip_horizontal", "shift", "crop", "rotation") if getattr(settings, name)]
    if of_images and len(rows.shape) != 4:
        raise TrainError(
            f"train.augmentation: {' and '.join(of_images)} need images of height, width and channels, but rows have "
            f"{len(rows.shape) - 1} dimensions: set data.reshape, or use only brightness, noise and mixup"
        )
    if settings.flip_horizontal:
        rows = tf.where(_uniform(rows, seed, 0)[:, tf.newaxis, tf.newaxis, tf.newaxis] < 0.5, rows, rows[:, :, ::-1])
    if settings.shift:
        rows = _shift(rows, settings.shift, seed)
    if settings.crop:
        rows = _crop(rows, settings.crop, seed)
    if settings.rotation:
        rows = _rotate(rows, math.radians(settings.rotation), seed)
    if settings.brightness:
        rows += _per_row(rows, (2 * _uniform(rows, seed, 6) - 1) * settings.brightness)
    if settings.noise:
        rows += tf.random.stateless_normal(tf.shape(rows), seed, stddev=settings.noise)
    return rows


def mix(tensors: Sequence[Any], alpha: float, seed: Any) -> list[Any]:
    """Mix each row of a batch with its neighbor, which the shuffled order makes any other row.

    Args:
        tensors: the rows and their targets, float32, each (rows, …).
        alpha: the recipe's `train.augmentation.mixup`.
        seed: see `augment`.

    Source: Zhang et al. 2018, mixup: beyond empirical risk minimization.
    """
    tf = load_tensorflow()
    first, second = (
        tf.random.stateless_gamma([tf.shape(tensors[0])[0]], seed + purpose, alpha) + _LEAST for purpose in (7, 8)
    )
    share = first / (first + second)
    return [_per_row(each, share) * each + _per_row(each, 1 - share) * tf.roll(each, 1, axis=0) for each in tensors]


def _per_row(rows: Any, numbers: Any) -> Any:
    """A number for each row, in the rank of the rows."""
    return load_tensorflow().reshape(numbers, [-1] + [1] * (len(rows.shape) - 1))


def _crop(rows: Any, share: float, seed: Any) -> Any:
    """Stretch a part of every image, of a size and at a place of its own, to the whole."""
    tf = load_tensorflow()
    size = 1 - share * _uniform(rows, seed, 3)
    top, left = ((1 - size) * _uniform(rows, seed, purpose) for purpose in (4, 5))
    boxes = tf.stack([top, left, top + size, left + size], axis=1)
    return tf.image.crop_and_resize(rows, boxes, tf.range(tf.shape(rows)[0]), rows.shape[1:3])


def _rotate(rows: Any, radians: float, seed: Any) -> Any:
    """Turn every image around its middle by an angle of its own."""
    tf = load_tensorflow()
    angle = (2 * _uniform(rows, seed, 9) - 1) * radians
    cos, sin, none = tf.cos(angle), tf.sin(angle), tf.zeros_like(angle)
    height, width = (size - 1.0 for size in rows.shape[1:3])
    right = (width - cos * width + sin * height) / 2
    down = (height - sin * width - cos * height) / 2
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=rows,
        transforms=tf.stack([cos, -sin, right, sin, cos, down, none, none], axis=1),
        output_shape=rows.shape[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


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
