"""Child processes: they end with what started them."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

from litelambda.common.processes import describe_exit, run_child

CHILD = "from litelambda.common.processes import exit_with_parent; exit_with_parent(); import time; time.sleep(600)"
PARENT = f"""
import os, sys
from litelambda.common.processes import run_child
run_child([sys.executable, "-c", {CHILD!r}])
"""


def test_output_and_exit_code_are_kept() -> None:
    """Both streams are captured as text."""
    child = run_child(["/bin/sh", "-c", "echo out; echo err >&2; exit 7"])
    assert (child.returncode, child.stdout, child.stderr) == (7, "out\n", "err\n")
    assert describe_exit(child.returncode) == "exit code 7"


def test_a_child_that_dies_is_told_by_its_signal() -> None:
    """Signals have names."""
    assert describe_exit(run_child(["/bin/sh", "-c", "kill -SEGV $$"]).returncode) == "SIGSEGV"


def test_a_child_that_watches_its_parent_ends_well() -> None:
    """Watching does not disturb the end of a child whose work is done."""
    script = "from litelambda.common.processes import exit_with_parent; exit_with_parent(); print('done')"
    child = run_child([sys.executable, "-c", script])
    assert (child.returncode, child.stdout, child.stderr) == (0, "done\n", "")


def test_a_killed_parent_takes_its_child_along() -> None:
    """Even SIGKILL of the parent, which it cannot handle, ends the child."""
    with subprocess.Popen([sys.executable, "-c", PARENT], start_new_session=True) as parent:
        deadline = time.monotonic() + 60
        while len(members(parent.pid)) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(members(parent.pid)) == 2
        parent.send_signal(signal.SIGKILL)
    while members(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert members(parent.pid) == []


def members(group: int) -> list[int]:
    """Living processes of a process group."""
    listed = subprocess.run(["/bin/ps", "-eo", "pid=,pgid=,stat="], capture_output=True, text=True, check=True)
    fields = [line.split() for line in listed.stdout.splitlines()]
    return [int(pid) for pid, pgid, state in fields if int(pgid) == group and not state.startswith("Z")]
