"""The servers that `bench load` measures: litelambda's, and its peers in environments of their own."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from litelambda.bench.peers import make_peer_environment
from litelambda.bench.subject import Subject
from litelambda.common.errors import BenchError

_HERE = Path(__file__).parent
_START_SECONDS = 90
_STOP_SECONDS = 20


@dataclass(frozen=True)
class Server:
    """A server that is up.

    Attributes:
        process: of its main process.
        port: on loopback.
        cores: that it may use.
    """

    process: int
    port: int
    cores: int

    def cpu_seconds(self) -> float:
        """CPU time so far of the process and all below it; 0 where the system has no /proc."""
        parents: dict[int, int] = {}
        ticks: dict[int, int] = {}
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            number = int(path.parent.name)
            parents[number], ticks[number] = int(fields[1]), int(fields[11]) + int(fields[12])
        family = {self.process}
        while more := {number for number, parent in parents.items() if parent in family} - family:
            family |= more
        return sum(ticks.get(number, 0) for number in family) / os.sysconf("SC_CLK_TCK")


def server_names(*, with_peers: bool) -> list[str]:
    """The names that `start` takes."""
    return ["litelambda", "litelambda_processes", *(["mlserver", "litserve"] if with_peers else [])]


@contextmanager
def start(name: str, store: str, subjects: Sequence[Subject], cores: int, scratch: Path) -> Iterator[Server]:
    """Start a server of some models and wait until it listens.

    Args:
        name: one of `server_names`.
        store: URL of the store that has the models.
        subjects: the models.
        cores: that it may use, and workers or copies that it has.
        scratch: a folder for its files and what it prints.

    Raises:
        BenchError: a peer's environment cannot be made, or the server ends before it listens.
    """
    port = _free_port()
    command, environment = _COMMANDS[name](store, subjects, cores, scratch, port)
    before = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with (scratch / f"{name}.log").open("w+", encoding="utf-8") as log:
        if before is not None:
            os.sched_setaffinity(0, sorted(before)[:cores])  # which the child inherits
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed
                command,
                env={**os.environ, **environment},
                cwd=scratch,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        finally:
            if before is not None:
                os.sched_setaffinity(0, before)
        try:
            _wait_until_up(name, process, port, log)
            yield Server(process.pid, port, cores)
        finally:
            _stop(process)


def _litelambda(
    store: str, _subjects: Sequence[Subject], cores: int, _scratch: Path, port: int, *, processes: int = 1
) -> tuple[list[str], Mapping[str, str]]:
    environment = {"MODEL_STORE": store, "PORT": f"{port}", "PROCESSES": f"{processes}", "LOG_LEVEL": "WARNING"}
    return [sys.executable, "-m", "litelambda_serving.asgi"], environment | {"CONCURRENCY": f"{cores // processes}"}


def _litelambda_processes(
    store: str, subjects: Sequence[Subject], cores: int, scratch: Path, port: int
) -> tuple[list[str], Mapping[str, str]]:
    return _litelambda(store, subjects, cores, scratch, port, processes=cores)


def _mlserver(
    _store: str, subjects: Sequence[Subject], cores: int, scratch: Path, port: int
) -> tuple[list[str], Mapping[str, str]]:
    python = make_peer_environment("mlserver")
    folder = scratch / "mlserver"
    folder.mkdir()
    shutil.copy(_HERE / "mlserver_runtime.py", folder)
    settings = {"host": "127.0.0.1", "http_port": port, "grpc_port": _free_port(), "metrics_port": _free_port(),
                "parallel_workers": cores, "debug": False}  # fmt: skip
    (folder / "settings.json").write_text(json.dumps(settings), encoding="utf-8")
    for name, path in _flatbuffers(subjects, scratch).items():
        (folder / name).mkdir()
        model = {"name": name, "implementation": "mlserver_runtime.LiteRt", "parameters": {"uri": str(path)}}
        (folder / name / "model-settings.json").write_text(json.dumps(model), encoding="utf-8")
    return [str(python.parent / "mlserver"), "start", str(folder)], {"PYTHONPATH": str(folder)}


def _litserve(
    _store: str, subjects: Sequence[Subject], cores: int, scratch: Path, port: int
) -> tuple[list[str], Mapping[str, str]]:
    python = make_peer_environment("litserve")
    models = [f"{name}={path}" for name, path in _flatbuffers(subjects, scratch).items()]
    return [str(python), str(_HERE / "litserve_server.py"), f"{port}", f"{cores}", *models], {}


_Start = Callable[[str, Sequence[Subject], int, Path, int], tuple[list[str], Mapping[str, str]]]
_COMMANDS: dict[str, _Start] = {
    "litelambda": _litelambda,
    "litelambda_processes": _litelambda_processes,
    "mlserver": _mlserver,
    "litserve": _litserve,
}


def _flatbuffers(subjects: Sequence[Subject], scratch: Path) -> dict[str, Path]:
    paths = {each.manifest.model: scratch / f"{each.manifest.model}.tflite" for each in subjects}
    for each in subjects:
        paths[each.manifest.model].write_bytes(each.artifact)
    return paths


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def _wait_until_up(name: str, process: subprocess.Popen[bytes], port: int, log: IO[str]) -> None:
    ends = time.monotonic() + _START_SECONDS
    while time.monotonic() < ends and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    log.seek(0)
    raise BenchError(f"{name} does not start: {log.read()[-800:].strip()}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop it as a container is stopped; what has not ended then, its workers included, is ended."""
    process.send_signal(signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # a session of its own
    process.wait()
