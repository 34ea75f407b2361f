"""The distribution with the extra `build`, installed where there is no checkout: the whole toolchain."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from litelambda.common.paths import PROJECT
from support.wheel import Installed, build_wheel, installed, needs_wheel

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [needs_wheel, pytest.mark.slow]


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installed]:
    """The wheel with the extra `build`."""
    wheel = build_wheel(tmp_path_factory.mktemp("distributions"))
    yield from installed(wheel, Path(sys.executable), "build.txt", tmp_path_factory.mktemp("build"))


def test_a_shipped_recipe_builds(full: Installed) -> None:
    """A recipe that ships builds by its name, on data that ships, into models/ of the current directory."""
    built = json.loads(full.run("build", "mnist_mlp", "--set", "train.epochs=1", "--json"))
    assert (built["model"], built["version"]) == ("mnist_mlp", 1)
    assert (full.folder / "models" / "mnist_mlp" / "1" / "model.tflite").is_file()


def test_the_pages_run_from_the_wheel(full: Installed) -> None:
    """The commands of the tutorial and of the README do what these pages say where only the wheel is installed."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", PROJECT / "tests/e2e/test_tutorial.py"]
    environment = {**full.variables, "LITELAMBDA_TEST_BIN": str(full.environment / "bin")}
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "2 passed" in done.stdout
