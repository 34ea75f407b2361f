"""What a process that opens models from elsewhere cannot do, tried in one; the kernel is the oracle."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from litelambda.common import confinement
from litelambda.common.child_process import ChildCrashError, ChildProcess, shared_folder

pytestmark = pytest.mark.skipif(
    bool(confinement.missing()), reason=f"this system cannot keep a process from {confinement.missing()}"
)

CALL_INTO_THE_KERNEL = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.syscall({number}, {arguments}) == -1
raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
"""


@pytest.fixture(scope="module")
def child() -> Iterator[ChildProcess]:
    """A confined process."""
    with ChildProcess() as made:
        yield made


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, socket.AF_NETLINK])
def test_no_socket_is_opened(child: ChildProcess, family: int) -> None:
    """Of no family: a socket of the local machine, as Docker's or an agent's for keys, leads out as well."""
    with pytest.raises(ChildCrashError, match="PermissionError"):
        child.call(socket.socket, family, socket.SOCK_DGRAM if family == socket.AF_NETLINK else socket.SOCK_STREAM)


@pytest.mark.parametrize("name", ["ptrace", "process_vm_writev", "io_uring_setup"])
def test_calls_that_lead_out_are_refused(child: ChildProcess, name: str) -> None:
    """Memory of other processes, and sockets by another way."""
    number = confinement._REFUSED_CALLS[os.uname().machine][1][name]
    with pytest.raises(ChildCrashError, match="PermissionError"):
        child.call(exec, CALL_INTO_THE_KERNEL.format(number=number, arguments="0, 0, 0, 0, 0, 0"))


def test_files_are_changed_in_one_folder_alone(child: ChildProcess, tmp_path: Path) -> None:
    """Elsewhere a file can be read; it cannot be made, changed, cut, moved, removed or linked from within."""
    there = tmp_path / "file"
    there.write_text("kept")
    mine = shared_folder() / "mine"
    assert child.call(there.read_text) == "kept"
    assert child.call(mine.write_text, "mine") == 4
    assert mine.read_text() == "mine"
    for function, *arguments in [
        (there.write_text, "other"),
        (os.truncate, str(there), 0),
        (there.unlink,),
        (there.rename, tmp_path / "moved"),
        (mine.rename, tmp_path / "planted"),
        (os.link, str(mine), str(tmp_path / "linked")),
        (os.symlink, str(mine), str(tmp_path / "linked")),
        ((tmp_path / "folder").mkdir,),
        (shutil.rmtree, str(tmp_path)),
    ]:
        with pytest.raises(ChildCrashError, match=r"PermissionError|OSError"):
            child.call(function, *arguments)  # type: ignore[operator, arg-type]
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"file": "kept"}


def test_what_it_starts_is_confined_as_well(child: ChildProcess, tmp_path: Path) -> None:
    """A program gets no more than its parent has."""
    program = f"import socket; open({str(tmp_path / 'x')!r}, 'w')"
    with pytest.raises(ChildCrashError, match="CalledProcessError"):
        child.call(subprocess.check_call, [sys.executable, "-c", program])
    assert not list(tmp_path.iterdir())
    status = child.call(Path("/proc/self/status").read_text)
    assert "NoNewPrivs:\t1" in status
    assert "Seccomp:\t2" in status


def test_other_processes_get_no_signal(child: ChildProcess) -> None:
    """Least of all its parent."""
    if confinement._landlock_version() < 6:
        pytest.skip("signals are confined from Linux 6.12 on")
    with pytest.raises(ChildCrashError, match="PermissionError"):
        child.call(os.kill, os.getpid(), signal.SIGCONT)


def test_memory_is_limited_to_the_machines(child: ChildProcess) -> None:
    """A model that claims 2^47 bytes fails by itself, and leaves no core file."""
    limit, _ = child.call(resource.getrlimit, resource.RLIMIT_DATA)
    assert limit == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert child.call(resource.getrlimit, resource.RLIMIT_CORE) == (0, 0)
    with pytest.raises(ChildCrashError) as caught:
        child.call(bytearray, 2**47)
    assert caught.value.for_memory


def test_a_process_that_is_not_confined_can(tmp_path: Path) -> None:
    """The same calls succeed there: it is the confinement that refuses them above."""
    with ChildProcess(confined=False) as free:
        assert free.call((tmp_path / "x").write_text, "x") == 1
        assert free.call(os.kill, os.getpid(), signal.SIGCONT) is None  # type: ignore[func-returns-value]
        assert "Seccomp:\t0" in free.call(Path("/proc/self/status").read_text)
