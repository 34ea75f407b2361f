"""One execution environment of a function: a process started as Lambda starts it, and the Runtime API it polls.

The interpreter is this one, seen through an empty virtual environment: its own site-packages and `.pth` files, which
Lambda does not have, stay out of every measured start. Nothing of the caller's environment is inherited.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Self

from litelambda.bench.emulator.runtime_api import Invocation, RuntimeApi
from litelambda.bench.report import peak_rss_mb
from litelambda.common.errors import BenchError
from litelambda.common.interrupts import hold, let_go

MEMORY_MB = 512
REGION = "eu-west-1"
_LOG_TAIL_BYTES = 4000
_KILL_AFTER_S = 5.0


def make_interpreter(directory: Path) -> Path:
    """Make an empty virtual environment of this interpreter in `directory` and return its `python`."""
    venv.create(directory, symlinks=True, with_pip=False)
    return directory / "bin" / "python"


def library_path() -> str:
    """The folders of the installed packages, as a function's `PYTHONPATH` names what lies beside its own code."""
    return os.pathsep.join(dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib")))


def lambda_environ(handler: str, tree: Path, extra: Mapping[str, str]) -> dict[str, str]:
    """The variables that Lambda sets for a function, with `extra` on top.

    Args:
        handler: the handler's dotted name.
        tree: the unpacked package.
        extra: the function's own settings and the endpoints it is to use.
    """
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "TZ": ":UTC",
        "PYTHONPATH": library_path(),
        "_HANDLER": handler,
        "LAMBDA_TASK_ROOT": str(tree),
        "LAMBDA_RUNTIME_DIR": library_path().split(os.pathsep)[0],
        "AWS_EXECUTION_ENV": f"AWS_Lambda_python{version}",
        "AWS_LAMBDA_FUNCTION_NAME": "bench",
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(MEMORY_MB),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": "/aws/lambda/bench",
        "AWS_LAMBDA_LOG_STREAM_NAME": "2026/01/01/[$LATEST]0123456789abcdef0123456789abcdef",
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "ASIAEXAMPLEEXAMPLE00",
        "AWS_SECRET_ACCESS_KEY": "example",
        "AWS_SESSION_TOKEN": "example",
        **extra,
    }


class Environment:
    """Starts a function's process and waits until it is ready; on leaving the context, kills it.

    Args:
        command: what to run, e.g. `[python, "-m", "awslambdaric", "predict.handler"]`.
        tree: the unpacked package: the process's working directory.
        environ: all of its environment, but for the Runtime API's address.
        log: the file that takes what it prints.
        timeout_s: how long INIT may take.
        keep_alive: see `RuntimeApi`.

    Raises:
        BenchError: INIT failed; the message ends with what the process printed last.
    """

    def __init__(
        self,
        command: Sequence[str],
        tree: Path,
        environ: Mapping[str, str],
        log: Path,
        *,
        timeout_s: float = 60.0,
        keep_alive: bool = True,
    ) -> None:
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.api = RuntimeApi(alive=lambda: self.process is None or self.process.poll() is None, keep_alive=keep_alive)
        try:
            variables = {**environ, "AWS_LAMBDA_RUNTIME_API": self.api.address}
            hold()  # a Ctrl-C inside Popen would leak the process
            try:
                with log.open("wb") as output:
                    started = time.perf_counter()
                    self.process = subprocess.Popen(  # noqa: S603 - a command of ours
                        command, cwd=tree, env=variables, stdin=subprocess.DEVNULL,
                        stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
                    )  # fmt: skip
            finally:
                let_go()
            self.init_ms = (self.api.wait_ready(timeout_s) - started) * 1000
        except BenchError as error:
            self.close()
            raise BenchError(f"{error}\n{self.log_tail()}") from error
        except BaseException:
            self.close()
            raise

    def invoke(
        self,
        event: object,
        *,
        timeout_s: float = 30.0,
        headers: Mapping[str, str | None] | None = None,
        chunked: bool = False,
    ) -> Invocation:
        """Hand the function one event and wait for its answer; see `RuntimeApi.invoke`.

        Raises:
            BenchError: the process died or did not answer; the message ends with what it printed last.
        """
        try:
            return self.api.invoke(event, timeout_s=timeout_s, headers=headers, chunked=chunked)
        except BenchError as error:
            raise BenchError(f"{error}\n{self.log_tail()}") from error

    def peak_rss_mb(self) -> float:
        """The largest resident set of the process so far, in Lambda's MB (2^20 bytes)."""
        if self.process is None:
            raise BenchError("the function's process was never started")
        return peak_rss_mb(self.process.pid)

    def log_tail(self) -> str:
        """The end of what the process printed."""
        data = self._log.read_bytes() if self._log.exists() else b""
        return data[-_LOG_TAIL_BYTES:].decode(errors="replace").strip()

    def close(self) -> None:
        """Kill the process with all it started, and close its Runtime API."""
        if self.process is not None and self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(_KILL_AFTER_S)
        self.api.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
