"""Child processes that never outlive what started them, and words for how they ended."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Sequence


def run_child(command: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end, its output captured.

    An exception that passes through, Ctrl-C above all, kills the child and waits until it is gone, which
    `subprocess.run` does not.
    """
    with subprocess.Popen(  # noqa: S603 - only our own modules are run
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
    ) as child:
        try:
            stdout, stderr = child.communicate()
        except BaseException:
            child.kill()
            child.wait()
            raise
    return subprocess.CompletedProcess(command, child.returncode, stdout, stderr)


def describe_exit(returncode: int) -> str:
    """Name the signal that ended a process, or its exit code."""
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
