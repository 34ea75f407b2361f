"""Devices: on which of them a model is trained. Several share every batch, each with a copy of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from litelambda.errors import TrainError
from litelambda.stages.backend import load_tensorflow


def sharing(devices: list[str] | None) -> AbstractContextManager[Any]:
    """The scope to make and fit a model in, so that the devices share the work.

    Args:
        devices: TensorFlow's names of them ("GPU:0", "CPU:0", …); None for every GPU there is.

    Raises:
        TrainError: a named device does not exist.
    """
    tf = load_tensorflow()
    found = [device.name.removeprefix("/device:") for device in tf.config.list_logical_devices()]
    names = [name for name in found if name.startswith("GPU:")] if devices is None else devices
    missing = [name for name in names if name not in found]
    if missing:
        raise TrainError(f"train.devices: there is no {', '.join(missing)}; this machine has {', '.join(found)}")
    if len(names) < 2:
        return _on(names[0]) if names else nullcontext()
    scope: AbstractContextManager[Any] = tf.distribute.MirroredStrategy(names).scope()
    return scope


def _on(name: str) -> AbstractContextManager[Any]:
    scope: AbstractContextManager[Any] = load_tensorflow().device(name)
    return scope
