"""Child processes that never outlive their parent, and descriptions of how they ended."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Sequence


def run_child(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end and capture its output.

    An exception, such as Ctrl-C, kills the child and waits until it has ended, which `subprocess.run` does not. The
    child's standard input ends when this process does: see `exit_with_parent`.
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
    """In a child of `run_child`: exit when the parent does, even if that was killed while starting this."""

    def watch() -> None:
        os.read(0, 1)  # unbuffered: a lock held on sys.stdin would abort the interpreter's shutdown
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def describe_exit(returncode: int) -> str:
    """Name the signal that ended a process, or its exit code.

    Example:
        >>> describe_exit(-9), describe_exit(3)
        ('SIGKILL', 'exit code 3')
    """
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"


def lacked_memory(returncode: int, stderr: str) -> bool:
    """Whether a process most likely ran out of memory: the kernel killed it, or its stderr says so."""
    return returncode == -signal.SIGKILL or "bad_alloc" in stderr or "MemoryError" in stderr
