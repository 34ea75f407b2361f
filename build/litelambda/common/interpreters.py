"""Finds a CPython of a given minor version on this machine by running each candidate.

Running them is needed: pyenv has a shim for every installed version, but a shim runs only if its version is selected.
"""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Interpreter", "find_interpreter"]

_PROBE = "import sys; print(sys.implementation.name, '.'.join(map(str, sys.version_info[:3])))"
_PROBE_TIMEOUT_S = 30


@dataclasses.dataclass(frozen=True)
class Interpreter:
    """A CPython that runs.

    Attributes:
        path: its executable.
        version: such as "3.13.0".
    """

    path: Path
    version: str


def find_interpreter(version: str) -> Interpreter | None:
    """Find a CPython of this minor version: the running one, on the PATH, in pyenv's and in uv's folders.

    Args:
        version: such as "3.13".

    Returns:
        The first that runs; None when there is none.
    """
    for candidate in _candidates(version):
        if candidate.is_file() and (found := _probe(candidate)) and found.startswith(f"{version}."):
            return Interpreter(candidate, found)
    return None


def _candidates(version: str) -> Iterator[Path]:
    name = f"python{version}"
    yield Path(sys.executable)
    yield from (Path(folder, name) for folder in os.environ.get("PATH", "").split(os.pathsep) if folder)
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    managed = Path(os.environ.get("UV_PYTHON_INSTALL_DIR") or Path.home() / ".local" / "share" / "uv" / "python")
    yield from sorted(pyenv.glob(f"versions/{version}.*/bin/{name}"), reverse=True)
    yield from sorted(managed.glob(f"cpython-{version}.*/bin/{name}"), reverse=True)


def _probe(executable: Path) -> str | None:
    """Ask an executable for its version; None when it is not CPython or does not run."""
    try:
        command = [str(executable), "-I", "-S", "-c", _PROBE]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_PROBE_TIMEOUT_S)  # noqa: S603 - found above
    except (OSError, subprocess.TimeoutExpired):
        return None
    implementation, _, version = done.stdout.strip().partition(" ")
    return version if done.returncode == 0 and implementation == "cpython" else None
