"""The cluster: hosts that train one model together, as TF_CONFIG says; the first of them publishes it.

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

from litelambda.common.errors import TrainError, UsageError, first_line
from litelambda.keras_tools.backend import backend, load_tensorflow
from litelambda.recipe.training import Train

_VARIABLE = "TF_CONFIG"
_TYPES = ("chief", "worker")
_EXPECTED = 'expected {"cluster": {"worker": ["host:port", …]}, "task": {"type": "worker", "index": 0}}'
_START_TIMEOUT_S = 300.0  # until all hosts listen: orchestrators start them minutes apart
_POLL_S = 0.2


@dataclass(frozen=True)
class Cluster:
    """The hosts that train together, and which of them this process is.

    Attributes:
        addresses: "host:port" of each host by its name, the chief's first.
        name: this host's, such as "worker 1".
    """

    addresses: Mapping[str, str]
    name: str

    @property
    def is_chief(self) -> bool:
        """Whether this host publishes the model."""
        return self.name == self.chief

    @property
    def chief(self) -> str:
        """Name of the host that publishes."""
        return next(iter(self.addresses))


def read_cluster() -> Cluster | None:
    """Read TF_CONFIG; None where it is not set, or names this host alone.

    Raises:
        UsageError: it does not follow TensorFlow's format, or has tasks other than "chief" and "worker".
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
        raise UsageError(f"{_VARIABLE} is not valid: {error!r}; {_EXPECTED}") from error
    if others := [kind for kind in config["cluster"] if kind not in _TYPES]:
        raise UsageError(f"{_VARIABLE}: tasks of type {', '.join(others)} are not supported; {_EXPECTED}")
    if name not in addresses:
        raise UsageError(
            f"{_VARIABLE}: this task, {name}, is not one of the cluster's: {', '.join(addresses) or 'it has none'}"
        )
    return Cluster(addresses, name) if len(addresses) > 1 else None


def join(cluster: Cluster, settings: Train) -> Any:
    """Wait for the other hosts and make the strategy that all of them train with.

    Raises:
        TrainError: the recipe has settings that need a single host, or a host did not start.
    """
    if backend() != "tensorflow":
        raise TrainError(f"{_VARIABLE} is set, but only train.backend = 'tensorflow' trains on several hosts")
    if settings.precision == "mixed_float16":
        raise TrainError("float16's loss scale cannot be shared by hosts: use train.precision = 'mixed_bfloat16'")
    if settings.devices != "auto":
        raise TrainError(f"train.devices: with {_VARIABLE} set, every host trains on all its GPUs, or on its CPU")
    tf = load_tensorflow()
    wait_for_hosts(cluster)
    # No Python runs while TensorFlow connects. If a host dies now, only this watchdog ends the wait, with exit code 1.
    faulthandler.dump_traceback_later(_START_TIMEOUT_S, exit=True)
    try:
        with host_failures_explained():
            return tf.distribute.MultiWorkerMirroredStrategy()
    finally:
        faulthandler.cancel_dump_traceback_later()


def wait_for_hosts(cluster: Cluster, timeout_s: float = _START_TIMEOUT_S) -> None:
    """Wait until every other host listens: TensorFlow's own wait has no timeout.

    Raises:
        TrainError: a host did not start in time, or this host's port is taken.
    """
    missing = {name: address for name, address in cluster.addresses.items() if name != cluster.name}
    deadline = time.monotonic() + timeout_s
    # The others find this socket, or soon after TensorFlow's at the same address.
    with _listening(cluster.addresses[cluster.name]):
        while missing := {name: address for name, address in missing.items() if not _is_listening(address)}:
            if time.monotonic() > deadline:
                absent = ", ".join(f"{name} ({address})" for name, address in missing.items())
                raise TrainError(f"{absent} did not start within {timeout_s:g} s. Nothing was published")
            time.sleep(_POLL_S)


@contextmanager
def host_failures_explained() -> Iterator[None]:
    """Turn TensorFlow's errors about a lost host into one sentence."""
    tf = load_tensorflow()
    try:
        yield
    except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError) as error:
        raise TrainError(
            f"another host was lost during training ({first_line(error)}): start all hosts again. Nothing was published"
        ) from error


@contextmanager
def _listening(address: str) -> Iterator[None]:
    _, port = _parse(address)
    try:
        server = socket.create_server(("", port), backlog=128)
    except OSError as error:
        raise TrainError(f"{_VARIABLE}: this host cannot listen on port {port}: {error.strerror}") from error
    with server:
        yield


def _is_listening(address: str) -> bool:
    try:
        with socket.create_connection(_parse(address), timeout=1):
            return True
    except OSError:
        return False


def _parse(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise UsageError(f"{_VARIABLE}: {address!r} is not an address; {_EXPECTED}")
    return host, int(port)
