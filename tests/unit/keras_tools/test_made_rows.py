"""Made rows: batches that any model takes, and how far two answers are apart."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.made_rows import answered, difference_ulps, made_batches

keras = load_keras()
layers, Input = keras.layers, keras.Input


def on(shape: tuple[int | None, ...], make: Callable[[Any], Any], dtype: str = "float32") -> Any:
    """A Functional model of one input."""
    given = Input(shape, dtype=dtype, name="x")
    return keras.Model(given, make(given))


def test_made_rows_come_in_batches_that_a_model_takes() -> None:
    """All at once where the batch is open, as many as a fixed one has, and only those that the model takes."""
    (open_batch,) = made_batches(on((4,), layers.Embedding(9, 3, mask_zero=True), "int32"))
    assert open_batch["x"].shape[1:] == (4,)
    given = Input(batch_shape=(4, 6), name="x")
    assert {each["x"].shape for each in made_batches(keras.Model(given, layers.Dense(2)(given)))} == {(4, 6)}
    narrow = on((3,), lambda x: layers.Embedding(3, 2)(x // 2), "int32")
    wide = on((3,), lambda x: layers.Embedding(3, 2)(x * 2), "int32")
    assert len(list(answered(narrow))) == 1
    taken = [batch["x"].max() for batch, _ in answered(wide)]
    assert 1 < len(taken) < len(made_batches(wide)[0]["x"])
    assert max(taken) == 1


def test_differences_count_in_ulps_of_the_largest_answer() -> None:
    """One step of float32 at the largest value is 1; what is not a number, an integer or a shape must be the same."""
    values = np.array([1.0, 1000.0], np.float32)
    assert difference_ulps([values], [values]) == 0
    assert difference_ulps([values], [np.nextafter(values, np.float32(2000))]) == 1
    assert difference_ulps([np.array([1, 2])], [np.array([1, 3])]) == float("inf")
    assert difference_ulps([values], [values[:1]]) == float("inf")
    assert difference_ulps([np.array([np.nan, 1])], [np.array([1, np.nan])]) == float("inf")
    assert difference_ulps([np.array([np.nan, 1])], [np.array([np.nan, 1])]) == 0
