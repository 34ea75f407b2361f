"""The input pipeline: batches of rows, from memory or from disk, in an order that the seed repeats."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from numpy.typing import NDArray

from litelambda.data.stored_rows import Rows, StoredRows
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.recipe.training import Train
from litelambda.training.augmentation import augment, mix

_PREFETCH = 2  # one batch in use, the next one ready; more only take memory
_PREDICT_BATCH = 256


def shuffled_batches(x: Rows, y: NDArray[Any], settings: Train, *more: NDArray[Any]) -> Any:
    """Batches in another order every epoch; the same orders for the same seed, in memory or on disk.

    Once a seed is set, Keras's own shuffling gives the same order in every epoch.

    Args:
        x: rows, as the model takes them.
        y: the target of each row.
        settings: batch size, augmentation and seed.
        more: other arrays with an entry for each row.

    Returns:
        A tf.data.Dataset of tuples: rows, then the rest.
    """
    tf = load_tensorflow()
    rows, others = _lookup(x), [_lookup(each) for each in (y, *more)]
    order = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=settings.seed, reshuffle_each_iteration=True)
    batches = order.batch(settings.batch_size)
    augmentation = settings.augmentation
    if augmentation is None:
        return batches.map(lambda i: (rows(i), *(each(i) for each in others))).prefetch(_PREFETCH)
    # TensorFlow refuses stateful random operations once operations are deterministic: each batch brings its seed.
    seeds = tf.data.Dataset.random(settings.seed, rerandomize_each_iteration=True).batch(2)

    def augmented(i: Any, seed: Any) -> tuple[Any, ...]:
        tensors = [augment(rows(i), augmentation, seed), *(each(i) for each in others)]
        return tuple(mix(tensors, augmentation.mixup, seed) if augmentation.mixup else tensors)

    return tf.data.Dataset.zip(batches, seeds).map(augmented).prefetch(_PREFETCH)


def sequential_batches(x: Rows, y: NDArray[Any] | None, batch_size: int) -> Any:
    """Batches of rows in order, with their targets unless `y` is None."""
    tf = load_tensorflow()
    rows = _lookup(x)
    batches = tf.data.Dataset.range(len(x)).batch(batch_size)
    if y is None:
        return batches.map(rows).prefetch(_PREFETCH)
    targets = _lookup(y)
    return batches.map(lambda i: (rows(i), targets(i))).prefetch(_PREFETCH)


def predict(model: Any, x: Rows) -> NDArray[Any]:
    """A model's outputs for all rows."""
    batch_size = model.inputs[0].shape[0] or _PREDICT_BATCH
    rows = sequential_batches(x, None, batch_size) if isinstance(x, StoredRows) else x
    with read_errors_raised(x):
        outputs: NDArray[Any] = model.predict(rows, batch_size=None if rows is not x else batch_size, verbose=0)
    return outputs


@contextmanager
def read_errors_raised(*sources: Rows | None) -> Iterator[None]:
    """Raise the error that reading rows failed with instead of the one that TensorFlow made of it."""
    try:
        yield
    except Exception:
        for rows in sources:
            if isinstance(rows, StoredRows) and rows.failure is not None:
                raise rows.failure from None
        raise


def _lookup(x: Rows) -> Any:
    """A function from a tensor of row numbers to a tensor of rows."""
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
