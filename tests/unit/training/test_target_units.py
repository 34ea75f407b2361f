"""Units: a model of standardized targets answers in their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.common.errors import TrainError
from litelambda.data.scaling import Preprocessing
from litelambda.keras_tools.backend import load_keras
from litelambda.training.target_units import check_can_change_units, in_own_units, in_standard_units

ROWS = np.random.default_rng(0).random((20, 4), dtype=np.float32)
SCALING = Preprocessing([0.001, 50.0], [-3.0, 0.5])


def make(kind: str) -> Any:
    """A model with two outputs, of this kind."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    layers = keras.layers
    hidden, last = layers.Dense(8, "relu"), layers.Dense(2, name="last")
    if kind == "sequential":
        return keras.Sequential([keras.Input((4,)), hidden, last])
    start = keras.Input((4,))
    if kind == "functional":
        return keras.Model(start, last(hidden(start)))
    return keras.Model(start, keras.Sequential([keras.Input((8,)), last])(hidden(start)))


@pytest.mark.parametrize("kind", ["sequential", "functional", "nested"])
def test_outputs_change_units(kind: str) -> None:
    """By hand: standardized = own x scale + offset, so own = (standardized - offset) / scale; and back again."""
    model = make(kind)
    before = model.predict(ROWS, verbose=0)
    in_own_units(model, SCALING)
    expected = (before.astype(np.float64) - [-3.0, 0.5]) / [0.001, 50.0]
    assert model.predict(ROWS, verbose=0) == pytest.approx(expected, rel=1e-5)
    in_standard_units(model, SCALING)
    assert model.predict(ROWS, verbose=0) == pytest.approx(before, abs=1e-5)


def test_zeros_and_columns_on_a_grid_stay() -> None:
    """What compression made of a kernel is still there: a column is multiplied by one number."""
    model = make("sequential")
    kernel = np.zeros((8, 2), np.float32)
    kernel[::2] = [[1, -2], [2, 4], [-3, 6], [1, 2]]
    model.layers[-1].kernel.assign(kernel)
    in_own_units(model, SCALING)
    found = np.array(model.layers[-1].kernel)
    assert np.array_equal(found == 0, kernel == 0)
    assert found[::2] == pytest.approx(kernel[::2] * [1000, 0.02])


@pytest.mark.parametrize(
    "last", [{"activation": "relu"}, {"use_bias": False}, {"activation": "softplus", "name": "positive"}]
)
def test_a_last_layer_that_is_not_linear_is_refused(last: dict[str, Any]) -> None:
    """No weights of it can take the change of units: the layer is named, and what to do."""
    keras = load_keras()
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, **last)])
    with pytest.raises(
        TrainError, match=rf"this one ends with Dense '{last.get('name', 'dense')}.*change the last layer, or use"
    ):
        check_can_change_units(model)
