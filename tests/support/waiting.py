"""Waiting for what other processes and threads do: for as long as a busy machine needs, and no longer."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

__all__ = ["is_alive", "wait_until"]

_Answer = TypeVar("_Answer")


def wait_until(
    condition: Callable[[], _Answer], seconds: float = 60, explain: Callable[[], object] = lambda: ""
) -> _Answer:
    """Ask until an answer is true, and return it.

    Args:
        condition: what is asked.
        seconds: after which the test fails.
        explain: called then; what it returns is in the message.
    """
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"it did not happen in {seconds} s: {explain()}"
        time.sleep(0.005)
    return answer


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):  # the second where it ends while it is read
        return False
