"""Words for how a child process ended."""

from __future__ import annotations

import signal


def describe_exit(returncode: int) -> str:
    """Name the signal that ended a process, or its exit code."""
    return signal.Signals(-returncode).name if returncode < 0 else f"exit code {returncode}"
