"""Child processes that never outlive what started them, and words for how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence


def run_child(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output captured.

    An exception that passes through, Ctrl-C above all, kills the child and waits until it is gone, which
    `subprocess.run` does not. The child's standard input ends when this process does: see `exit_with_parent`.
    """
    reader, writer = os.pipe()
    try:
        with subprocess.Popen(  # noqa: S603 - only our own modules are run
            command, stdin=reader, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        ) as child:
            try:
                stdout, stderr = child.communicate()
            except BaseException:
                child.kill()
                child.wait()
                raise
    finally:
        os.close(reader)
        os.close(writer)
    return subprocess.CompletedProcess(command, child.returncode, stdout, stderr)


def exit_with_parent() -> None:
    """In a child of `run_child`: die with the parent, even where it was killed or interrupted while starting this."""

    def watch() -> None:
        os.read(0, 1)  # unbuffered: a lock held on sys.stdin would abort the interpreter's shutdown
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def describe_exit(returncode: int) -> str:
    """Name the signal that ended a process, or its exit code."""
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"


def lacked_memory(returncode: int, said: str) -> bool:
    """Whether a process most likely ended for want of memory: the kernel killed it, or it said so on stderr."""
    return returncode == -signal.SIGKILL or "bad_alloc" in said or "MemoryError" in said
