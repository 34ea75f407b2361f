"""What every test of a process shares, and must leave as it was: the next test could depend on it."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from concurrent.futures.thread import _threads_queues
from typing import NamedTuple

__all__ = ["ProcessState"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD)
_IMPORTED = {
    "ENABLE_RUNTIME_UPTIME_TELEMETRY", "HDF5_PLUGIN_PATH", "KERAS_BACKEND", "TF2_BEHAVIOR", "TF_CPP_MIN_LOG_LEVEL",
    "TPU_ML_PLATFORM", "TPU_ML_PLATFORM_VERSION", "absl",
}  # fmt: skip
"""Variables, and a logger, that importing TensorFlow and Keras sets, once for a process."""


class ProcessState(NamedTuple):
    """The state of this process at some time.

    Children that are left running are seen by Popen's own warning; threads of executors do nothing between tests.
    """

    environment: dict[bytes, bytes]
    current_directory: str
    sys_path: list[str]
    signal_handlers: list[object]
    threads: set[threading.Thread]
    loggers: dict[str, tuple[int, bool, bool, list[logging.Handler]]]

    @classmethod
    def read(cls) -> ProcessState:
        """The state now."""
        return cls(
            dict(os.environ._data),  # decoding takes a hundred times as long
            os.getcwd(),  # noqa: PTH109 - called before and after each test
            list(sys.path),
            [signal.getsignal(number) for number in _SIGNALS],
            {thread for thread in threading.enumerate() if not thread.daemon and thread not in _threads_queues},
            {
                name: (each.level, each.disabled, each.propagate, list(each.handlers))
                for name, each in logging.root.manager.loggerDict.items()
                if isinstance(each, logging.Logger)
            },
        )

    def changes(self) -> list[str]:
        """What has changed since, in words; nothing where all is as it was."""
        now = ProcessState.read()
        names = {name.decode() for name, _ in self.environment.items() ^ now.environment.items()}
        found = [f"os.environ[{name!r}]" for name in sorted(names - _IMPORTED - {"PYTEST_CURRENT_TEST"})]
        found += [f"a thread, {thread.name}" for thread in now.threads - self.threads if thread.is_alive()]
        found += [
            f"logger {name}" for name in self.loggers.keys() - _IMPORTED if self.loggers[name] != now.loggers[name]
        ]
        return found + [name for name in self._fields[1:4] if getattr(self, name) != getattr(now, name)]
