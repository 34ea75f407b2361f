"""What a server has in its environment beside the function's settings, read once when it starts."""

from __future__ import annotations

import os

from litelambda_serving.errors import SettingsError
from litelambda_serving.settings import Setting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["SERVER_SETTINGS", "ServerSettings"]

SERVER_SETTINGS = (
    Setting(
        "PORT",
        "",
        "Port that `python -m litelambda_serving.asgi` listens on, on all addresses. Empty: AIP_HTTP_PORT, else 8080.",
    ),
    Setting("AIP_HTTP_PORT", "", "Port, as Vertex AI sets it."),
    Setting("AIP_PREDICT_ROUTE", "", "A path that is answered as `/invocations` is; Vertex AI sets it."),
    Setting("AIP_HEALTH_ROUTE", "", "A path that is answered as `/ping` is; Vertex AI sets it."),
    Setting(
        "PROCESSES",
        "1",
        "Processes that `python -m litelambda_serving.asgi` serves with, each with models and memory of its own: for "
        "models that compute for less time than Python takes to read and write a request.",
    ),
    Setting(
        "CONCURRENCY",
        "",
        "Requests for one model that a process runs at the same time, each on a compiled copy of the model as far as "
        "MODEL_MEMORY_MB has room. Empty: the cores that each process has.",
    ),
    Setting("QUEUE_LIMIT", "256", "Requests that wait for their turn; further ones are answered with 503."),
    Setting("REQUEST_SECONDS", "30", "Time of a request, waiting included; then it is answered with 503 or 504."),
)

_CPU_QUOTA = "/sys/fs/cgroup/cpu.max"


class ServerSettings:
    """Validated settings.

    Attributes:
        port: 1 to 65535.
        routes: further paths, each with the one that answers it.
        processes: >= 1.
        concurrency: runs of one model at the same time, >= 1.
        queue_limit: requests that wait, >= 1.
        request_seconds: of each request, >= 1.
    """

    port: int
    routes: dict[str, str]
    processes: int
    concurrency: int
    queue_limit: int
    request_seconds: int

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> ServerSettings:
        """Read and check a server's environment.

        Raises:
            SettingsError: a variable is impossible; the message says what it may be.

        >>> ServerSettings.from_environment({"CONCURRENCY": "4"}).concurrency
        4
        """
        values = {each.name: environment.get(each.name) or each.default or "" for each in SERVER_SETTINGS}
        self = cls()
        port = "PORT" if values["PORT"] or not values["AIP_HTTP_PORT"] else "AIP_HTTP_PORT"
        self.port = _number(port, values[port] or "8080", 65535)
        self.routes = {
            _path(name, values[name]): known
            for name, known in (("AIP_PREDICT_ROUTE", "/invocations"), ("AIP_HEALTH_ROUTE", "/ping"))
            if values[name]
        }
        self.processes = _number("PROCESSES", values["PROCESSES"], 256)
        cores = max(1, _num_cores() // self.processes)
        self.concurrency = _number("CONCURRENCY", values["CONCURRENCY"] or f"{cores}", 256)
        self.queue_limit = _number("QUEUE_LIMIT", values["QUEUE_LIMIT"], 1_000_000)
        self.request_seconds = _number("REQUEST_SECONDS", values["REQUEST_SECONDS"], 86400)
        return self


def _number(name: str, text: str, most: int) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise SettingsError(f"{name} is {text!r}, expected a number from 1 to {most}")
    return int(text)


def _path(name: str, text: str) -> str:
    if not text.startswith("/") or "?" in text:
        raise SettingsError(f"{name} is {text!r}, expected a path that begins with '/'")
    return text


def _num_cores() -> int:
    """Cores that this process may use: a container's share of its machine's, rounded up."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        with open(_CPU_QUOTA, encoding="ascii") as file:
            quota, period = file.read().split()
        return max(1, min(cores, -(-int(quota) // int(period))))
    except (OSError, ValueError):  # not Linux, or no limit: "max"
        return cores
