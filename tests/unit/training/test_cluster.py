"""Hosts: who trains together, and how they find each other."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from litelambda.common.errors import TrainError, UsageError
from litelambda.recipe.load import load_recipe
from litelambda.training.cluster import Cluster, join, read_cluster, wait_for_hosts
from support.ports import free_port


def two_workers(name: str = "worker 0") -> Cluster:
    """Two workers on loopback."""
    return Cluster({f"worker {index}": f"127.0.0.1:{free_port()}" for index in range(2)}, name)


@pytest.mark.parametrize(
    ("cluster", "task", "name", "is_chief"),
    [
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 0}, "worker 0", True),
        ({"worker": ["a:1", "b:2"]}, {"type": "worker", "index": 1}, "worker 1", False),
        ({"worker": ["a:1"], "chief": ["b:2"]}, {"type": "chief", "index": 0}, "chief 0", True),
        ({"worker": ["a:1"], "chief": ["b:2"]}, {"type": "worker", "index": "0"}, "worker 0", False),
    ],
)
def test_tf_config_says_who_this_is(
    monkeypatch: pytest.MonkeyPatch, cluster: Any, task: Any, name: str, is_chief: bool
) -> None:
    """The chief is the first of the workers, or the task of that name."""
    monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": cluster, "task": task}))
    found = read_cluster()
    assert found is not None
    assert (found.name, found.is_chief, len(found.addresses)) == (name, is_chief, 2)


@pytest.mark.parametrize("text", ["", '{"cluster": {"worker": ["a:1"]}, "task": {"type": "worker", "index": 0}}'])
def test_a_process_alone_is_no_cluster(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    """Without TF_CONFIG, or with one that names nobody else, a build is what it always is."""
    monkeypatch.setenv("TF_CONFIG", text)
    assert read_cluster() is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no json", "is not valid"),
        ("[]", "is not valid"),
        ('{"cluster": {"worker": ["a:1", "b:1"]}}', "KeyError.*expected"),
        (
            '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 2}}',
            "worker 2, is not one of the cluster.s",
        ),
        ('{"cluster": {"ps": ["a:1"], "worker": ["b:1"]}, "task": {"type": "worker", "index": 0}}', "type ps are not"),
    ],
)
def test_a_tf_config_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    """What was found, and what is expected, is in the message."""
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UsageError, match=f"TF_CONFIG.*{message}"):
        read_cluster()


def test_hosts_wait_for_each_other() -> None:
    """Whoever comes first waits; both go on when both are there, at their own socket or already at TensorFlow's."""
    cluster = two_workers()
    done = threading.Barrier(2, timeout=20)

    def work(name: str) -> None:
        wait_for_hosts(Cluster(cluster.addresses, name), timeout_s=10)
        port = int(cluster.addresses[name].split(":")[1])
        with socket.create_server(("127.0.0.1", port)):  # TensorFlow's, from here on
            done.wait()

    later = threading.Timer(0.5, work, ["worker 1"])
    later.start()
    work("worker 0")
    later.join(timeout=20)
    assert not done.broken


def test_a_host_that_does_not_come_up_is_named() -> None:
    """Waiting ends, with the address that did not answer."""
    cluster = two_workers()
    with pytest.raises(TrainError, match=rf"worker 1 \({cluster.addresses['worker 1']}\) did not start within 0\.3 s"):
        wait_for_hosts(cluster, timeout_s=0.3)


def test_an_address_that_is_taken_or_none_is_named() -> None:
    """A port in use, and an address without one."""
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        with pytest.raises(TrainError, match=f"this host cannot listen on port {port}"):
            wait_for_hosts(Cluster({"worker 0": f"localhost:{port}", "worker 1": "localhost:1"}, "worker 0"))
    with pytest.raises(UsageError, match="'localhost' is not an address"):
        wait_for_hosts(Cluster({"worker 0": "localhost", "worker 1": "localhost:1"}, "worker 0"))


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("train.precision=mixed_float16", r"use train\.precision = 'mixed_bfloat16'"),
        ("train.devices=['CPU:0']", "every host trains on all its GPUs"),
    ],
)
def test_what_only_one_host_can_do_is_refused(tiny_recipe: Path, override: str, message: str) -> None:
    """Before anybody waits for anybody."""
    with pytest.raises(TrainError, match=message):
        join(two_workers(), load_recipe(tiny_recipe, [override]).train)
