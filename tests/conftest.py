"""Real tiny artifacts, made once per session by the project's own stages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from litelambda.sections import Quantize
from litelambda.stages.backend import load_keras
from litelambda.stages.quantize import quantize


def representative_rows(model: Any, num_rows: int = 32) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Seeded random rows in [0, 1) for each input of a model."""
    noise = np.random.default_rng(0)
    return {tensor.name: noise.random((num_rows, *tensor.shape[1:]), dtype=np.float32) for tensor in model.inputs}


@pytest.fixture(scope="session")
def tiny_model() -> Any:
    """A Keras classifier: "features" (4) -> Dense 8 relu -> Dense 3 softmax, "probabilities"."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((4,), name="features"),
            keras.layers.Dense(8, "relu", name="hidden"),
            keras.layers.Dense(3, "softmax", name="probabilities"),
        ],
        name="tiny",
    )


@pytest.fixture(scope="session")
def two_way_model() -> Any:
    """A Keras model with the inputs "left" (4) and "right" (2, 3) and the outputs "class" (2) and "score" (1)."""
    keras = load_keras()
    keras.utils.set_random_seed(0)
    left, right = keras.Input((4,), name="left"), keras.Input((2, 3), name="right")
    joined = keras.layers.Concatenate(name="joined")([left, keras.layers.Flatten(name="flat")(right)])
    hidden = keras.layers.Dense(5, "relu", name="hidden")(joined)
    outputs = [keras.layers.Dense(2, "softmax", name="class")(hidden), keras.layers.Dense(1, name="score")(hidden)]
    return keras.Model([left, right], outputs, name="two_way")


@pytest.fixture(scope="session")
def tiny_tflite(tiny_model: Any) -> bytes:
    """`tiny_model` in int8 with float32 edges."""
    return quantize(tiny_model, representative_rows(tiny_model), Quantize()).artifact


@pytest.fixture(scope="session")
def tiny_uint8_tflite(tiny_model: Any) -> bytes:
    """`tiny_model` in int8 with uint8 edges."""
    return quantize(tiny_model, representative_rows(tiny_model), Quantize(io="uint8")).artifact


@pytest.fixture(scope="session")
def two_way_tflite(two_way_model: Any) -> bytes:
    """`two_way_model` in int8 with float32 edges."""
    return quantize(two_way_model, representative_rows(two_way_model), Quantize()).artifact
