"""Batches: rows on their way into Keras, out of memory or off the disk, in an order that a seed repeats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from litelambda.data.stored_rows import Rows, StoredRows
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.recipe.training import Train
from litelambda.training.augmentation import augment

_AHEAD = 2  # batches that are made ready while the model is busy with another
_PREDICTED_AT_ONCE = 256


def row_batches(x: Rows, y: NDArray[Any], settings: Train, *more: NDArray[Any]) -> Any:
    """Batches in another order every epoch, the same orders for the same seed, wherever the rows lie.

    Keras's own shuffling starts anew with every epoch once a seed is set: it gives the same order every time.

    Args:
        x: rows, as the model takes them.
        y: what belongs to each.
        settings: batch size, augmentation and seed.
        more: what else belongs to each.

    Returns:
        A tf.data.Dataset of tuples: rows, then the rest.
    """
    tf = load_tensorflow()
    rows, others = _looked_up(x), [_looked_up(each) for each in (y, *more)]
    order = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=settings.seed, reshuffle_each_iteration=True)
    batches = order.batch(settings.batch_size)
    augmentation = settings.augmentation
    if augmentation is None:
        return batches.map(lambda i: (rows(i), *(each(i) for each in others))).prefetch(_AHEAD)
    # Random operations of TensorFlow's own are refused where all must repeat: seeds come with the rows.
    seeds = tf.data.Dataset.random(settings.seed, rerandomize_each_iteration=True).batch(2)
    return (
        tf.data.Dataset.zip(batches, seeds)
        .map(lambda i, seed: (augment(rows(i), augmentation, seed), *(each(i) for each in others)))
        .prefetch(_AHEAD)
    )


def batches_in_order(x: Rows, y: NDArray[Any] | None, batch_size: int) -> Any:
    """Batches of rows from the first to the last, with what belongs to them, or alone."""
    tf = load_tensorflow()
    rows = _looked_up(x)
    batches = tf.data.Dataset.range(len(x)).batch(batch_size)
    if y is None:
        return batches.map(rows).prefetch(_AHEAD)
    targets = _looked_up(y)
    return batches.map(lambda i: (rows(i), targets(i))).prefetch(_AHEAD)


def predict(model: Any, x: Rows) -> NDArray[Any]:
    """A model's outputs for all rows."""
    batch_size = model.inputs[0].shape[0] or _PREDICTED_AT_ONCE
    rows = batches_in_order(x, None, batch_size) if isinstance(x, StoredRows) else x
    with failures_of(x):
        outputs: NDArray[Any] = model.predict(rows, batch_size=None if rows is not x else batch_size, verbose=0)
    return outputs


@contextmanager
def failures_of(*found: Rows | None) -> Iterator[None]:
    """Where TensorFlow could not read rows, raise what went wrong with them, not TensorFlow's words for it."""
    try:
        yield
    except Exception:
        for rows in found:
            if isinstance(rows, StoredRows) and rows.failure is not None:
                raise rows.failure from None
        raise


def _looked_up(x: Rows) -> Any:
    """What turns a tensor of row numbers into a tensor of rows."""
    tf = load_tensorflow()
    if not isinstance(x, StoredRows):
        with tf.device("CPU"):
            held = tf.constant(x)
        return lambda numbers: tf.gather(held, numbers)

    def read(numbers: Any) -> Any:
        rows = tf.numpy_function(lambda wanted: x[wanted], [numbers], tf.as_dtype(x.dtype))
        rows.set_shape([None, *x.shape[1:]])
        return rows

    return read
