"""Ctrl-C while JAX trains: taken between two steps, when nothing is being computed.

JAX computes beside Python and gives up its arrays for what it makes of them. A step that is cut off leaves a model of
arrays that are gone, and a process that crashes on its way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litelambda.common.interrupts import hold, interrupted, interrupts_noted, let_go
from litelambda.keras_tools.backend import backend, load_keras
from litelambda.keras_tools.layers import read


@contextmanager
def between_steps() -> Iterator[list[Any]]:
    """Hold the first Ctrl-C back until the step is done; a second one does not wait.

    Yields:
        The Keras callbacks to train with; none on TensorFlow, which needs no such care.
    """
    if backend() != "jax":
        yield []
        return
    keras = load_keras()

    class Interrupts(keras.callbacks.Callback):  # type: ignore[misc, name-defined] # Keras has no types
        """Ends training where Ctrl-C asked for it."""

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras's signature
            if interrupted():
                for weight in self.model.weights:  # asking for the model has its state brought back
                    read(weight)  # waits for the step
                raise KeyboardInterrupt

    with interrupts_noted():
        hold()
        try:
            yield [Interrupts()]
        finally:
            let_go()
