"""Child processes: one for many calls, another after it died, none that outlives its parent."""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from litelambda.common.child_process import ChildCrashError, ChildProcess, call_in_child
from litelambda.common.errors import UsageError
from litelambda.common.paths import store_url
from support.waiting import is_alive, wait_until

PARENT = """
from litelambda.common.child_process import call_in_child, shared_folder
print(shared_folder(), flush=True)
call_in_child(exec, f"import time; open('{shared_folder()}/begun', 'w'); time.sleep(600)")
"""


@pytest.fixture
def child() -> Iterator[ChildProcess]:
    """One of its own, gone after the test."""
    with ChildProcess() as made:
        yield made


def test_one_process_serves_many_and_another_one_after_it_died(child: ChildProcess) -> None:
    """The same child answers again; killed while it waits, it is replaced unnoticed; closed, it is gone."""
    first = child.call(os.getpid)
    assert child.call(os.getpid) == first != os.getpid()
    os.kill(first, signal.SIGKILL)  # it may still be dying when it is asked again
    second = child.call(os.getpid)
    assert second != first
    child.close()
    assert not is_alive(second)


def test_arrays_and_words_travel_both_ways(child: ChildProcess) -> None:
    """Megabytes, names that no file could have, strings that are not UTF-8."""
    words = np.array([[b"a", b"\xff\x00"], [b"", b"b" * 300]], object)
    sent = {"a/b": np.arange(2_000_000), "": words}
    found = child.call(dict, sent)
    assert list(found) == ["a/b", ""]
    assert np.array_equal(found["a/b"], sent["a/b"])
    assert found[""].tolist() == words.tolist()


def test_an_error_of_ours_comes_through_as_it_is(child: ChildProcess) -> None:
    """With its type and its message, and the child lives on."""
    pid = child.call(os.getpid)
    with pytest.raises(UsageError, match="not an empty text"):
        child.call(store_url, "")
    assert child.call(os.getpid) == pid


@pytest.mark.parametrize(
    ("function", "argument", "ended", "last_line"),
    [
        (os._exit, 3, "exit code 3", ""),
        (signal.raise_signal, signal.SIGSEGV, "SIGSEGV", ""),
        (math.sqrt, -1, "exit code 1", "ValueError: math domain error"),
    ],
    ids=["exit", "signal", "exception"],
)
def test_a_crash_is_told_by_its_signal_and_its_last_words(
    child: ChildProcess, function: Callable[[int], object], argument: int, ended: str, last_line: str
) -> None:
    """What is written to stderr belongs to the call that wrote it; the next one gets another process."""
    child.call(print, "earlier words")
    with pytest.raises(ChildCrashError) as caught:
        child.call(function, argument)
    assert (caught.value.ended, caught.value.last_line, caught.value.for_memory) == (ended, last_line, False)
    assert "earlier" not in caught.value.stderr
    assert child.call(math.gcd, 12, 18) == 6


@pytest.mark.parametrize(
    "death", ["os.kill(os.getpid(), 9)", "raise MemoryError", "print('std::bad_alloc', file=sys.stderr); os.abort()"]
)
def test_too_little_memory_is_told_apart(death: str) -> None:
    """The kernel's SIGKILL, Python's exception and what C++ writes."""
    with pytest.raises(ChildCrashError) as caught:
        call_in_child(exec, f"import os, sys; {death}")
    assert caught.value.for_memory


def test_a_call_that_takes_too_long_is_ended() -> None:
    """The child is gone, and another one answers the next call."""
    with ChildProcess(timeout_s=1) as child, pytest.raises(TimeoutError, match="not done after 1 s"):
        child.call(time.sleep, 600)


def test_a_process_that_has_grown_is_not_kept(child: ChildProcess) -> None:
    """Memory goes back to the build."""
    pid = child.call(os.getpid)
    child.call(exec, "import __main__; __main__._LARGE_BYTES = 1")
    assert not is_alive(pid)
    assert child.call(os.getpid) != pid


def test_it_ends_with_its_parent() -> None:
    """Even SIGKILL of the parent, which it cannot handle, ends the child in the middle of a call."""
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        folder = Path(parent.stdout.readline().rstrip())
        wait_until((folder / "begun").exists)
        [pid] = map(int, Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split())
        assert is_alive(pid)
        parent.kill()
    wait_until(lambda: not is_alive(pid))
    shutil.rmtree(folder)  # which the parent could not
