"""Imports TensorFlow and Keras late, once, and without their log output; Keras runs on TensorFlow or on JAX.

TensorFlow is used on either backend: it feeds rows to training, and its converter makes flatbuffers, in another
process. A process has one backend: the converter's is always TensorFlow.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, get_args

from litelambda.common.errors import UsageError

Backend = Literal["tensorflow", "jax"]

_VARIABLE = "KERAS_BACKEND"
_UNUSED = frozenset({"jax", "matplotlib"})
"""What TensorFlow and Keras import where it is there, only to convert JAX's functions and to draw pictures."""
_DETERMINISTIC = "--xla_gpu_deterministic_ops=true"


class _Chosen:
    backend: Backend = "tensorflow"


def choose_backend(in_recipe: Backend | None) -> Backend:
    """Choose the backend of Keras in this process, before Keras is imported.

    Args:
        in_recipe: the recipe's `train.backend`; None leaves it to the environment's KERAS_BACKEND, and else TensorFlow.

    Raises:
        UsageError: recipe and environment disagree, the environment names another backend, JAX is not installed, or
            Keras already runs on the other backend.
    """
    running = sys.modules["keras"].backend.backend() if "keras" in sys.modules else None
    in_environment = None if running else os.environ.get(_VARIABLE)
    chosen = in_recipe or in_environment or running or "tensorflow"
    if in_environment and in_environment not in get_args(Backend):
        raise UsageError(
            f"{_VARIABLE} is {in_environment!r} in the environment, expected 'tensorflow' or 'jax': change or unset it"
        )
    if in_environment and in_environment != chosen:
        raise UsageError(
            f"train.backend is {chosen!r}, but {_VARIABLE} is {in_environment!r} in the environment: unset one of them"
        )
    if running and (running != chosen or running not in get_args(Backend)):
        raise UsageError(
            f"Keras already runs on {running!r} in this process, but {in_recipe or 'tensorflow'!r} is needed: "
            "use a new process"
        )
    if chosen == "jax" and importlib.util.find_spec("jax") is None:
        raise UsageError("the backend 'jax' needs JAX, which is not installed: pip install 'litelambda[jax]'")
    _Chosen.backend = "jax" if chosen == "jax" else "tensorflow"
    return _Chosen.backend


def backend() -> Backend:
    """The backend of Keras in this process."""
    return _Chosen.backend


def load_tensorflow() -> Any:
    """Import TensorFlow without log output, and in 5 s in place of 8; on the JAX backend it uses only the CPU."""
    first = "tensorflow" not in sys.modules
    if first:
        os.environ.update({_VARIABLE: backend(), "TF_CPP_MIN_LOG_LEVEL": "3"})  # TensorFlow imports Keras
        if backend() == "jax" and _DETERMINISTIC not in os.environ.get("XLA_FLAGS", ""):
            os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_DETERMINISTIC}".lstrip()
    unused = _UNUSED if backend() == "tensorflow" else _UNUSED - {"jax"}
    with native_stderr_held_back(unless=not first), _quick_import(unused, unless=not first):
        import tensorflow as tf

        if first and backend() == "jax":
            tf.config.set_visible_devices([], "GPU")
    if first:
        from absl import logging

        logging.set_verbosity(logging.ERROR)
    return tf


def load_keras() -> Any:
    """Import Keras on the chosen backend, without log output."""
    load_tensorflow()
    import keras

    return keras


def backend_errors() -> tuple[type[Exception], ...]:
    """The errors that Keras and the chosen backend raise where a model cannot be run."""
    errors = (ValueError, TypeError, load_tensorflow().errors.OpError)
    if backend() == "tensorflow":
        return errors
    import jax

    return (*errors, jax.errors.JaxRuntimeError)


@contextmanager
def _quick_import(unused: Iterable[str], *, unless: bool = False) -> Iterator[None]:
    """Import without some packages, which can be imported afterwards, and without the garbage collector.

    Later collections, such as Keras's before each training, pass over what was imported: a million objects that stay.
    """
    if unless:
        yield
        return
    hidden = [name for name in unused if name not in sys.modules]
    collects = gc.isenabled()
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]  # None: as if it were not installed
    gc.disable()
    try:
        yield
        gc.freeze()
    finally:
        for name in hidden:
            del sys.modules[name]
        if collects:
            gc.enable()


@contextmanager
def native_stderr_held_back(*, unless: bool = False) -> Iterator[None]:
    """Capture what native code writes to file descriptor 2, whatever the log level; show it only if the block fails.

    Args:
        unless: capture nothing.
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
