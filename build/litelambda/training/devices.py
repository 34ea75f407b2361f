"""Devices: which of them train a model. Several share every batch, each with a copy of the weights."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

from litelambda.common.errors import TrainError
from litelambda.keras_tools.backend import backend, load_keras, load_tensorflow


def device_scope(devices: list[str] | Literal["auto"]) -> AbstractContextManager[Any]:
    """The scope to make and fit a model in, so that the devices share the work.

    Args:
        devices: names ("GPU:0", "CPU:0", …); "auto" for every GPU, under JAX for every device of its fastest kind.

    Raises:
        TrainError: a named device does not exist.
    """
    found = _find()
    if devices == "auto":
        names = found if backend() == "jax" else [name for name in found if name.startswith("GPU:")]
    else:
        names = devices
    missing = [name for name in names if name not in found]
    if missing:
        raise TrainError(f"train.devices: no device {', '.join(missing)}; this machine has {', '.join(found)}")
    if devices == "auto" and backend() == "jax" and len(names) < 2:
        return nullcontext()
    if len(names) < 2:
        return _on(names[0]) if names else nullcontext()
    return _shared_by(names)


def for_devices(batches: Any, num_rows: int, batch_size: int) -> Any:
    """Batches that the devices of `device_scope` can share.

    JAX needs equal parts: the remainder at the end of an epoch, fewer rows than there are devices, is dropped.

    Args:
        batches: a tf.data.Dataset of tuples of tensors, rows first.
        num_rows: in all of them.
        batch_size: of all but the last.

    Raises:
        TrainError: the batch size is not a multiple of the number of devices.
    """
    number = num_replicas()
    if number == 1:
        return batches
    if batch_size % number:
        raise TrainError(
            f"train.batch_size = {batch_size} cannot be split into equal parts for {number} devices: use "
            f"{batch_size // number * number or number} or {(batch_size // number + 1) * number}"
        )
    full, rest = divmod(num_rows, batch_size)

    def cut(*parts: Any) -> Any:
        end = load_tensorflow().shape(parts[0])[0] // number * number
        return tuple(part[:end] for part in parts)

    return batches.take(full + (rest >= number)).map(cut)


def num_replicas() -> int:
    """How many devices share a batch under JAX; TensorFlow's strategies split batches themselves."""
    if backend() != "jax":
        return 1
    distribution = load_keras().distribution.distribution()
    return 1 if distribution is None else int(distribution.num_model_replicas)


def _find() -> list[str]:
    if backend() == "jax":
        return [name.upper() for name in load_keras().distribution.list_devices()]
    return [device.name.removeprefix("/device:") for device in load_tensorflow().config.list_logical_devices()]


def _on(name: str) -> AbstractContextManager[Any]:
    scope: AbstractContextManager[Any]
    scope = load_keras().device(name.lower()) if backend() == "jax" else load_tensorflow().device(name)
    return scope


def _shared_by(names: list[str]) -> AbstractContextManager[Any]:
    scope: AbstractContextManager[Any]
    if backend() == "jax":
        scope = load_keras().distribution.DataParallel(devices=[name.lower() for name in names]).scope()
    else:
        scope = load_tensorflow().distribute.MirroredStrategy(names).scope()
    return scope
