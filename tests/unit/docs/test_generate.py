"""The reference pages: what is generated is up to date, and says something about everything."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from litelambda.common.paths import PROJECT

DOCS = PROJECT / "docs"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the generator."""
    command = [sys.executable, str(DOCS / "generate.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_reference_pages_are_what_the_code_says() -> None:
    """The generated tables are those that the generator makes now: a change of the code changes the pages with it."""
    done = run("--check")
    assert done.returncode == 0, f"{done.stdout}{done.stderr}: run .venv/bin/python docs/generate.py"


def test_a_page_that_says_something_else_is_found_and_rewritten(tmp_path: Path) -> None:
    """With a wrong default in a table the check fails by the page's name, and the generator corrects it."""
    for path in DOCS.rglob("*.md"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    page = tmp_path / "settings.md"
    right = page.read_text()
    page.write_text(right.replace("| `MODEL_VERSION` | `latest` |", "| `MODEL_VERSION` | `newest` |"))
    assert page.read_text() != right
    wrong = run("--check", str(tmp_path))
    assert (wrong.returncode, wrong.stdout) == (1, "docs: out of date: settings.md\n")
    assert run(str(tmp_path)).returncode == 0
    assert page.read_text() == right


@pytest.mark.parametrize("page", sorted((DOCS / "reference").glob("*.md")), ids=lambda page: page.stem)
def test_everything_in_the_reference_has_a_meaning(page: Path) -> None:
    """No row of a generated table ends with an empty cell."""
    regions = re.findall(r"<!-- generated: .*?<!-- end -->", page.read_text(), re.DOTALL)
    rows = [line for region in regions for line in region.splitlines() if line.startswith("|")]
    assert [row for row in rows if re.search(r"\|\s*\|$", row)] == []
