"""Ctrl-C while JAX trains: taken between two steps, when nothing is being computed.

JAX computes beside Python and gives up its arrays for what it makes of them. A step that is cut off leaves a model of
arrays that are gone, and a process that crashes on its way out.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from litelambda.common.interrupts import note_interrupt
from litelambda.keras_tools.backend import backend, load_keras
from litelambda.keras_tools.layers import read


@contextmanager
def between_steps() -> Iterator[list[Any]]:
    """Hold the first Ctrl-C back until the step is done; a second one does not wait.

    Yields:
        The Keras callbacks to train with; none on TensorFlow, which needs no such care, and outside the main thread.
    """
    if backend() != "jax" or threading.current_thread() is not threading.main_thread():
        yield []
        return
    keras = load_keras()
    asked: list[int] = []
    before = signal.getsignal(signal.SIGINT)

    def ask(number: int, _frame: object) -> None:
        note_interrupt()
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    class Interrupts(keras.callbacks.Callback):  # type: ignore[misc, name-defined] # Keras has no types
        """Ends training where Ctrl-C asked for it."""

        def on_train_batch_end(self, batch: int, logs: object = None) -> None:  # noqa: ARG002 - Keras's signature
            if asked:
                for weight in self.model.weights:  # asking for the model has its state brought back
                    read(weight)  # waits for the step
                raise KeyboardInterrupt

    signal.signal(signal.SIGINT, ask)
    try:
        yield [Interrupts()]
    finally:
        signal.signal(signal.SIGINT, before)
    if asked:
        raise KeyboardInterrupt
