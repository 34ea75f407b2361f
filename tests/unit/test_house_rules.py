"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from litelambda.common.paths import FUNCTIONS, PROJECT, REQUIREMENTS

TEST_FILES = sorted((PROJECT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("path", TEST_FILES, ids=lambda path: path.stem)
def test_every_test_says_what_behaviour_it_holds(path):
    """A test's docstring is its specification, so every test has one."""
    functions = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]
    tests = [node for node in functions if node.name.startswith("test_")]
    assert tests
    assert [node.name for node in tests if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("path", sorted(REQUIREMENTS.glob("*.txt")), ids=lambda path: path.stem)
def test_locks_pin_by_hash_and_name_no_registry(path):
    """Every requirement has hashes; where packages come from is the installer's business."""
    text = path.read_text()
    assert "://" not in text
    requirements = [line for line in text.replace("\\\n", " ").splitlines() if "==" in line and line[0] != "#"]
    assert requirements
    assert [line for line in requirements if "--hash=sha256:" not in line] == []


def test_ranges_and_locks_agree():
    """What pyproject.toml asks for is in the lock that `make setup` installs."""
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text())
    wanted = project["project"]["dependencies"] + project["dependency-groups"]["dev"]
    names = {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in wanted}
    locked = set(
        re.findall(r"^([A-Za-z0-9_.-]+)(?:\[[^\]]*\])?==", (REQUIREMENTS / "dev.txt").read_text(), re.MULTILINE)
    )
    assert names <= {name.lower() for name in locked}


def test_serving_never_imports_the_toolchain():
    """What is deployed does not know what built it."""
    for path in FUNCTIONS.rglob("*.py"):
        assert not re.search(r"^\s*(from|import) litelambda\b", path.read_text(), re.MULTILINE), path


def test_the_toolchain_imports_without_doing_work():
    """Importing the command loads no TensorFlow, so that `--help` and a typo answer at once."""
    script = "import litelambda.cli.main, sys, json; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=60
    ).stdout
    assert not {"tensorflow", "keras", "boto3"} & set(json.loads(output))


def test_no_tracked_file_knows_this_machine():
    """No path of a home directory or of a checkout is written into the project."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=PROJECT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: there is no list of tracked files")
    for name in filter(None, listed.stdout.split("\0")):
        path = PROJECT / name
        if path.suffix in {".npz", ".tflite", ".png"} or not path.exists():
            continue
        text = path.read_text(errors="replace")
        assert str(Path.home()) + "/" not in text, name
        assert str(PROJECT.parent) + "/" not in text or PROJECT.parent == Path("/"), name
