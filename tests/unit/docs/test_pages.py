"""The pages: what they quote, link to and tell people to type exists."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from litelambda.common.paths import PROJECT
from support.markdown import anchors_of, blocks_of, links_of

DOCS = PROJECT / "docs"
README, CONTRIBUTING = PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"
PAGES = [README, CONTRIBUTING, *sorted(DOCS.rglob("*.md"))]


@cache
def texts_of_the_code() -> tuple[str, ...]:
    """Every string of the code, with "…" for what is filled in."""
    folders = [PROJECT / "build" / "litelambda", PROJECT / "functions"]
    found = []
    for path in (path for folder in folders for path in folder.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return tuple(found)


def quoted_errors() -> list[str]:
    """The texts in the headings of the page on troubleshooting, and of that on the gate."""
    pages = [DOCS / "troubleshooting.md", DOCS / "how-to" / "gate-refused.md"]
    headings = [line for page in pages for line in page.read_text().splitlines() if re.match("##+ .*`", line)]
    return [text for heading in headings for text in re.findall("`([^`]+)`", heading)]


@pytest.mark.parametrize("quoted", quoted_errors())
def test_every_error_that_a_page_explains_is_one_that_the_code_raises(quoted: str) -> None:
    """The quoted text stands in the code: its parts between the "…" follow each other in one message."""
    pattern = ".*".join(re.escape(part.strip()) for part in quoted.split("…") if part.strip())
    assert any(re.search(pattern, text, re.DOTALL) for text in texts_of_the_code())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file leads to one of the repository, and its fragment to a heading there."""
    for link in links_of(page):
        if re.match("https?://", link):
            continue
        name, _, fragment = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists(), link
        if fragment:
            assert fragment in anchors_of(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(PROJECT)))
def test_commands_that_pages_show_exist(page: Path) -> None:
    """Every `litelambda` command in a block for the shell has only options that the reference has for it."""
    reference = (DOCS / "reference" / "command-line.md").read_text()
    for line in (line for block in blocks_of(page, "sh", "console") for line in block.splitlines()):
        if found := re.match(r"(?:\$ )?(?:\w+=\S+ )?litelambda ((?:bench )?\w+)(.*)", line):
            section = reference.partition(f"\n## litelambda {found[1]}\n")[2].partition("\n## ")[0]
            assert section, line
            assert [flag for flag in re.findall(r" (--[a-z-]+)", found[2]) if f"`{flag}" not in section] == [], line


def test_the_readme_is_a_front_page() -> None:
    """150 lines at most: what is longer belongs into docs/."""
    assert len(README.read_text().splitlines()) <= 150
