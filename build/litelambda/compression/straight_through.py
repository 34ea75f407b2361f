"""Straight-through training: the model uses constrained weights while their unconstrained values are trained.

A projection maps the free values of a kernel to those that the model may use: with zeros, on a grid, or from a few
values. The model computes with the projected weights; the optimizer's step is added to the free ones. One callback
serves pruning, quantization-aware training and clustering on both backends, since it only reads and assigns variables.

Source: Bengio et al. 2013, "Estimating or propagating gradients", the straight-through estimator; Courbariaux et al.
2015, "BinaryConnect", for weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.layers import Array, read

Projection = Callable[[Array], Array]
"""From a kernel's free values to those that the model may use."""


def straight_through(
    variables: Mapping[str, Any],
    projections: Mapping[str, Projection],
    on_step: Callable[[int, Mapping[str, Array]], None],
) -> Any:
    """Make the Keras callback that keeps a model's weights projected.

    Args:
        variables: the kernels by layer name.
        projections: with the same keys; looked up at every step.
        on_step: called with the number of finished steps, from 0, and the free values, before they are projected.
    """
    keras = load_keras()

    class StraightThrough(keras.callbacks.Callback):  # type: ignore[misc, name-defined] # Keras has no types
        """Projects before the first step and after every step."""

        def __init__(self) -> None:
            super().__init__()
            self.free = {name: read(variable) for name, variable in variables.items()}
            self.used: dict[str, Array] = {}
            self.step = 0

        def on_train_begin(self, logs: object = None) -> None:  # noqa: ARG002 - Keras's signature
            self.sync()
            self.project()

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras's signature
            self.sync()
            self.step += 1
            for name, variable in variables.items():
                self.free[name] += read(variable) - self.used[name]
            self.project()

        def project(self) -> None:
            """Assign the projected weights to the model."""
            on_step(self.step, self.free)
            for name, variable in variables.items():
                self.used[name] = projections[name](self.free[name]).astype(np.float32)
                variable.assign(self.used[name])

        def sync(self) -> None:
            """Copy the weights out of the trainer's state, where they are during training under JAX."""
            if hasattr(self.model, "jax_state_sync"):
                self.model.jax_state_sync()

    return StraightThrough()
