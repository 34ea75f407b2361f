"""Hosts: several of them train one model together, as TF_CONFIG says; the first of them goes on and publishes it.

TF_CONFIG is TensorFlow's own: {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}.
"""

from __future__ import annotations

import faulthandler
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from litelambda.common.errors import TrainError, UsageError
from litelambda.keras_tools.backend import backend, load_tensorflow
from litelambda.recipe.training import Train

_VARIABLE = "TF_CONFIG"
_TYPES = ("chief", "worker")
_EXPECTED = 'expected {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
_PATIENCE_S = 300.0  # until all hosts have come up
_PAUSE_S = 0.2


@dataclass(frozen=True)
class Cluster:
    """Who trains together, and which of them this process is.

    Attributes:
        addresses: "host:port" of each by its name, the chief's first.
        name: of this process, such as "worker 1".
    """

    addresses: Mapping[str, str]
    name: str

    @property
    def is_chief(self) -> bool:
        """Whether this process publishes what all have trained."""
        return self.name == self.chief

    @property
    def chief(self) -> str:
        """Name of the one that publishes."""
        return next(iter(self.addresses))


def read_cluster() -> Cluster | None:
    """Read TF_CONFIG; None where it is not set, or names this process alone.

    Raises:
        UsageError: it is not what TensorFlow documents, or has other tasks than "chief" and "worker".
    """
    text = os.environ.get(_VARIABLE)
    if not text:
        return None
    try:
        config = json.loads(text)
        tasks = {kind: list(config["cluster"][kind]) for kind in _TYPES if kind in config["cluster"]}
        addresses = {f"{kind} {index}": str(each) for kind, found in tasks.items() for index, each in enumerate(found)}
        name = f"{config['task']['type']} {int(config['task']['index'])}"
    except (ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{_VARIABLE} cannot be understood: {error!r}; {_EXPECTED}") from error
    if others := [kind for kind in config["cluster"] if kind not in _TYPES]:
        raise UsageError(f"{_VARIABLE}: tasks of type {', '.join(others)} are not for builds; {_EXPECTED}")
    if name not in addresses:
        raise UsageError(f"{_VARIABLE}: this task, {name}, is none of {', '.join(addresses) or 'its cluster'}")
    return Cluster(addresses, name) if len(addresses) > 1 else None


def join(cluster: Cluster, settings: Train) -> Any:
    """Wait for the other hosts and make the strategy by which all train together.

    Raises:
        TrainError: the recipe asks for what only one host can do, or a host did not come up.
    """
    if backend() != "tensorflow":
        raise TrainError(f"{_VARIABLE} is set, and only train.backend = 'tensorflow' trains on several hosts")
    if settings.precision == "mixed_float16":
        raise TrainError("several hosts cannot agree on float16's loss scale: use train.precision = 'mixed_bfloat16'")
    if settings.devices != "auto":
        raise TrainError(f"train.devices: with {_VARIABLE} set, every host trains on all its GPUs, or on its CPU")
    tf = load_tensorflow()
    meet(cluster)
    # While TensorFlow connects nothing of Python's runs: if a host dies just now, only this ends the waiting, with 1.
    faulthandler.dump_traceback_later(_PATIENCE_S, exit=True)
    try:
        with losses_of_hosts():
            return tf.distribute.MultiWorkerMirroredStrategy()
    finally:
        faulthandler.cancel_dump_traceback_later()


def meet(cluster: Cluster, patience_s: float = _PATIENCE_S) -> None:
    """Wait until every other host listens; nothing could end TensorFlow's own waiting.

    Raises:
        TrainError: a host did not come up in time, or this one's address is taken.
    """
    missing = {name: address for name, address in cluster.addresses.items() if name != cluster.name}
    deadline = time.monotonic() + patience_s
    # The others find this socket, or TensorFlow's at the same address soon after.
    with _listening(cluster.addresses[cluster.name]):
        while missing := {name: address for name, address in missing.items() if not _answers(address)}:
            if time.monotonic() > deadline:
                absent = ", ".join(f"{name} ({address})" for name, address in missing.items())
                raise TrainError(f"{absent} did not come up within {patience_s:g} s; nothing was trained or published")
            time.sleep(_PAUSE_S)


@contextmanager
def losses_of_hosts() -> Iterator[None]:
    """Say in a sentence that another host is gone."""
    tf = load_tensorflow()
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        reason = next(iter(str(error).splitlines()), "")
        raise TrainError(
            f"another host was lost while all trained together; start them all again. Nothing was published ({reason})"
        ) from error


@contextmanager
def _listening(address: str) -> Iterator[None]:
    _, port = _parse(address)
    try:
        server = socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise TrainError(f"{_VARIABLE}: this host cannot listen at port {port}: {error.strerror}") from error
    with server:
        yield


def _answers(address: str) -> bool:
    try:
        with socket.create_connection(_parse(address), timeout=1):
            return True
    except OSError:
        return False


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{_VARIABLE}: {address!r} is no address; {_EXPECTED}")
    return host, int(port)
