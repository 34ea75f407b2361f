"""Ctrl-C while JAX trains: handled between two steps, when nothing is being computed.

JAX computes asynchronously and donates its arrays to the result. An interrupted step leaves a model of deleted arrays,
and a process that crashes on exit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litelambda.common.interrupts import hold, interrupted, interrupts_noted, let_go
from litelambda.keras_tools.backend import backend, load_keras
from litelambda.keras_tools.layers import read


@contextmanager
def interrupts_between_steps() -> Iterator[list[Any]]:
    """Defer the first Ctrl-C until the step is done; a second one raises at once.

    Yields:
        The Keras callbacks to train with; none on TensorFlow, which is not affected.
    """
    if backend() != "jax":
        yield []
        return
    keras = load_keras()

    class Interrupts(keras.callbacks.Callback):  # type: ignore[misc, name-defined] # Keras has no types
        """Raises the deferred KeyboardInterrupt."""

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras's signature
            if interrupted():
                for weight in self.model.weights:  # `self.model` syncs the state of the trainer
                    read(weight)  # waits for the step
                raise KeyboardInterrupt

    with interrupts_noted():
        hold()
        try:
            yield [Interrupts()]
        finally:
            let_go()
