"""Building the distribution and installing it in environments of its own, for the tests of `make test-wheel`."""

from __future__ import annotations

import os
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import uv

from litelambda.common.paths import PROJECT, REQUIREMENTS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

# These build and install: they are for `make test-wheel`, which says so.
needs_wheel = pytest.mark.skipif("LITELAMBDA_TEST_WHEEL" not in os.environ, reason="run by `make test-wheel`")


def run_uv(*arguments: str | Path) -> None:
    """Run a uv command that must succeed."""
    command = [uv.find_uv_bin(), "--quiet", "--no-config", *map(str, arguments)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"


@dataclass(frozen=True)
class Installed:
    """An environment that has the wheel, and a folder to work in; both outside the checkout.

    Attributes:
        environment: the virtual environment.
        folder: the current directory of what is run.
    """

    environment: Path
    folder: Path

    @property
    def variables(self) -> dict[str, str]:
        """Of a shell in which the environment is active, and which knows nothing of the checkout."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
        path = os.pathsep.join([str(self.environment / "bin"), os.environ["PATH"]])
        return {**kept, "PATH": path, "VIRTUAL_ENV": str(self.environment)}

    def run(self, *arguments: str | Path, exit_code: int = 0) -> str:
        """Run `litelambda` and return what it said on stdout, or on stderr where it is to fail."""
        command = [str(self.environment / "bin" / "litelambda"), *map(str, arguments)]
        done = subprocess.run(
            command, cwd=self.folder, env=self.variables, capture_output=True, text=True, timeout=600, check=False
        )
        assert done.returncode == exit_code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stderr if exit_code else done.stdout

    def files(self) -> set[Path]:
        """What is installed, but for bytecode."""
        installed = (path for path in self.environment.rglob("*") if path.is_file())
        return {path.relative_to(self.environment) for path in installed if "__pycache__" not in path.parts}


def build_wheel(folder: Path) -> Path:
    """Build the sdist, and the wheel from it, into a folder."""
    run_uv("build", "--out-dir", folder)
    (wheel,) = folder.glob("*.whl")
    return wheel


def installed(wheel: Path, python: Path, lock: str, folder: Path) -> Iterator[Installed]:
    """Install the wheel; at the end, see that no command has written to what is installed."""
    made = install(wheel, python, lock, folder)
    before = made.files()
    yield made
    assert made.files() == before


def install(wheel: Path, python: Path, lock: str, folder: Path) -> Installed:
    """Install a wheel, with what a lock of requirements/ names and nothing else, below a folder."""
    environment = folder / "environment"
    run_uv("venv", "--python", python, environment)
    own = environment / "bin" / "python"
    run_uv("pip", "sync", "--python", own, "--require-hashes", REQUIREMENTS / lock)
    run_uv("pip", "install", "--python", own, "--no-deps", wheel)
    run_uv("pip", "check", "--python", own)
    work = folder / "work"
    work.mkdir()
    return Installed(environment, work)
