"""Imports TensorFlow and Keras late, once, and without their chatter."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

_ENVIRONMENT = {
    "KERAS_BACKEND": "tensorflow",
    "TF_CPP_MIN_LOG_LEVEL": "3",
}


def load_tensorflow() -> Any:
    """Import TensorFlow, quiet."""
    first = "tensorflow" not in sys.modules
    if first:
        os.environ.update(_ENVIRONMENT)
    with native_stderr_held_back(unless=not first):
        import tensorflow as tf
    if first:
        from absl import logging

        logging.set_verbosity(logging.ERROR)
    return tf


def load_keras() -> Any:
    """Import Keras on the TensorFlow backend, quiet."""
    load_tensorflow()
    import keras

    return keras


@contextmanager
def native_stderr_held_back(*, unless: bool = False) -> Iterator[None]:
    """Keep what native code writes to file descriptor 2, past every log level; show it only if the block fails.

    Args:
        unless: do nothing.
    """
    if unless:
        yield
        return
    sys.stderr.flush()
    original = os.dup(2)
    try:
        with tempfile.TemporaryFile() as held_back:
            os.dup2(held_back.fileno(), 2)
            try:
                yield
            except Exception:
                held_back.seek(0)
                os.write(original, held_back.read())
                raise
            finally:
                os.dup2(original, 2)
    finally:
        os.close(original)
