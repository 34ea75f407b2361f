"""The converter's process: one for many conversions, another after it died, none that outlives its parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from litelambda.common.kept_process import KeptProcess
from litelambda.conversion.converter import PROCESS

PARENT = """
import sys
from pathlib import Path
from litelambda.common.kept_process import KeptProcess
from litelambda.conversion.converter import PROCESS
KeptProcess(PROCESS).run(Path(sys.argv[1]))
"""


@pytest.fixture
def converter() -> Iterator[KeptProcess]:
    """One of its own, gone after the test."""
    made = KeptProcess(PROCESS)
    yield made
    made.close()


@pytest.fixture
def jobs(tmp_path: Path) -> Path:
    """A file that lists no conversion: it is done without importing TensorFlow."""
    path = tmp_path / "jobs.json"
    path.write_text("[]")
    return path


def child_of(converter: KeptProcess) -> int:
    """The process that it keeps."""
    assert converter._child is not None
    return converter._child.pid


def is_alive(pid: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pid: int) -> bool:
    """Whether a process ends within a minute."""
    deadline = time.monotonic() + 60
    while is_alive(pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not is_alive(pid)


def test_one_process_serves_many_and_another_one_after_it_died(converter: KeptProcess, jobs: Path) -> None:
    """The same child answers again; killed while it waits, it is replaced unnoticed; closed, it is gone."""
    assert converter.run(jobs).returncode == 0
    first = child_of(converter)
    assert converter.run(jobs).returncode == 0
    assert child_of(converter) == first
    os.kill(first, signal.SIGKILL)  # it may still be dying when it is asked again
    assert converter.run(jobs).returncode == 0
    second = child_of(converter)
    assert second != first
    converter.close()
    assert not is_alive(second)


def test_a_crash_is_told_by_its_signal_and_its_last_words(converter: KeptProcess, jobs: Path) -> None:
    """What is written to stderr belongs to the conversion that wrote it; the next one gets another process."""
    jobs.write_text("[not JSON")
    died = converter.run(jobs)
    assert died.returncode == 1
    assert "JSONDecodeError" in died.stderr
    jobs.write_text("[]")
    done = converter.run(jobs)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_process_that_has_grown_is_not_kept(
    converter: KeptProcess, jobs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory goes back to the build."""
    assert converter.run(jobs).returncode == 0
    assert is_alive(child_of(converter))
    grown = "from litelambda.common import kept_process; from litelambda.conversion import converter_process; "
    grown += "kept_process._LARGE_BYTES = 1; kept_process.serve(converter_process.run_jobs)"
    converter.close()
    monkeypatch.setattr(converter, "_command", [sys.executable, "-c", grown])
    assert converter.run(jobs).returncode == 0
    assert converter._child is None
    assert converter.run(jobs).returncode == 0


def test_it_ends_with_its_parent(tmp_path: Path) -> None:
    """Even SIGKILL of the parent, which it cannot handle, ends the child in the middle of a conversion."""
    jobs = tmp_path / "jobs.json"
    os.mkfifo(jobs)  # reading it takes for ever
    with subprocess.Popen([sys.executable, "-c", PARENT, str(jobs)]) as parent:
        deadline = time.monotonic() + 60
        children: list[str] = []
        while not children and time.monotonic() < deadline:
            children = Path(f"/proc/{parent.pid}/task/{parent.pid}/children").read_text().split()
            time.sleep(0.05)
        [child] = map(int, children)
        time.sleep(1)
        assert is_alive(child)
        parent.kill()
    assert wait_until_gone(child)
