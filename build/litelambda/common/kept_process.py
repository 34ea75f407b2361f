"""A child process that is kept for later jobs: importing TensorFlow takes 5 s, converting a small model 1 s.

The child reads the path of a file of jobs from each line of its standard input, and answers each with a line on its
standard output. It dies with its parent: when its standard input ends, at once.
"""

from __future__ import annotations

import atexit
import os
import queue
import resource
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO

_LARGE_BYTES = 1024**3
"""The most memory that a child may hold after its jobs to be kept: the rest of the build needs memory too."""
_KEPT, _ENDED = "kept", "ended"


class KeptProcess:
    """Runs files of jobs in a child process, which is started when needed, and again after it died.

    An exception in the parent, such as Ctrl-C, kills the child and waits until it has ended.

    Args:
        module: the child runs `python -m MODULE`, which must call `serve`.
        environ: variables that only the child has.
    """

    def __init__(self, module: str, environ: Mapping[str, str] | None = None) -> None:
        self._command = [sys.executable, "-m", module]
        self._environ = environ or {}
        self._child: subprocess.Popen[str] | None = None
        self._stderr: IO[bytes] | None = None
        atexit.register(self._close_all)

    def run(self, jobs: Path, timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
        """Run the jobs of a file; if a child that ran others before dies, run them again in a new one.

        Args:
            jobs: an absolute path; only the module reads the file.
            timeout_s: how long they may take, or None.

        Returns:
            The child's exit code, negative for a signal, where it died; else 0 or 1. With what it wrote to stderr.

        Raises:
            TimeoutError: they took longer; the child is gone.
        """
        was_kept = self._child is not None
        done = self._run(jobs, timeout_s)
        if done.returncode not in (0, 1) and was_kept:
            done = self._run(jobs, timeout_s)  # earlier jobs may have caused it: a new child tells
        return done

    def _run(self, jobs: Path, timeout_s: float | None) -> subprocess.CompletedProcess[str]:
        child, stderr = self._running()
        start = stderr.seek(0, os.SEEK_END)
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        watchdog = threading.Timer(timeout_s or 0, child.kill)
        try:
            if deadline is not None:
                watchdog.start()
            returncode = self._ask(child, jobs)
        except BaseException:
            self.close()
            raise
        finally:
            watchdog.cancel()
        if deadline is not None and returncode == -signal.SIGKILL and time.monotonic() >= deadline:
            raise TimeoutError(f"not done after {timeout_s:g} s")
        stderr.seek(start)
        return subprocess.CompletedProcess([str(jobs)], returncode, "", stderr.read().decode(errors="replace"))

    def close(self) -> None:
        """End the child, if there is one."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.communicate()

    def _close_all(self) -> None:
        self.close()
        if self._stderr is not None:
            self._stderr.close()

    def _running(self) -> tuple[subprocess.Popen[str], IO[bytes]]:
        """The running child, and the file that its stderr goes to."""
        if self._stderr is None:
            self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - serves every child
        if self._child is None or self._child.poll() is not None:
            self.close()
            self._stderr.seek(0)
            self._stderr.truncate()
            self._child = subprocess.Popen(  # noqa: S603 - our own module
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env={**os.environ, **self._environ},
                text=True,
            )
        return self._child, self._stderr

    def _ask(self, child: subprocess.Popen[str], jobs: Path) -> int:
        assert child.stdin is not None  # noqa: S101 - for the type checker: both are pipes
        assert child.stdout is not None  # noqa: S101 - as above
        try:
            child.stdin.write(f"{jobs}\n")
            child.stdin.flush()
        except BrokenPipeError:
            pass  # it died, and will not answer either
        answer = child.stdout.readline().split()
        if not answer:
            returncode = child.wait()
            self.close()
            return returncode
        if answer[1] == _ENDED:
            self.close()
        return int(answer[0])


def serve(run_jobs: Callable[[Path], int]) -> None:
    """In the child: run files of jobs until standard input ends.

    Args:
        run_jobs: runs one; its result is 0 or 1.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C, and ends this process
    with os.fdopen(os.dup(1), "w", buffering=1) as answers:
        os.dup2(2, 1)  # so that native code cannot write into the answers
        asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        threading.Thread(target=_read_jobs, args=(asked,), daemon=True).start()
        while True:
            returncode = run_jobs(Path(asked.get()))
            is_large = _held_bytes() > _LARGE_BYTES
            answers.write(f"{returncode} {_ENDED if is_large else _KEPT}\n")
            if is_large:
                os._exit(0)


def _read_jobs(asked: queue.SimpleQueue[str]) -> None:
    """Queue the lines of standard input, and end the process at its end: its result is not needed any more."""
    rest = b""
    while data := os.read(0, 65536):  # unbuffered: a lock held on sys.stdin would abort the interpreter's shutdown
        *lines, rest = (rest + data).split(b"\n")
        for line in lines:
            asked.put(os.fsdecode(line))
    os._exit(1)


def _held_bytes() -> int:
    """The memory that this process holds; the most that it ever held where the system does not report it."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
