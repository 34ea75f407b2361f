"""What tests read in Markdown pages: blocks of code, links and the anchors of headings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

_FENCE = re.compile(r'^```(\w*)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
_INLINE_CODE = re.compile(r"`[^`\n]*`")


class Block(NamedTuple):
    """A fenced block: its language, its title (the name of a file) or "", and its text."""

    language: str
    title: str
    text: str


def read_blocks(page: Path) -> list[Block]:
    """Every fenced block of a page, in their order."""
    return [Block(*found) for found in _FENCE.findall(page.read_text(encoding="utf-8"))]


def blocks_of(page: Path, *languages: str) -> list[str]:
    """The texts of the fenced blocks in these languages."""
    return [block.text for block in read_blocks(page) if block.language in languages]


def links_of(page: Path) -> list[str]:
    """Where the links and images of a page lead."""
    return _LINK.findall(_INLINE_CODE.sub("", _without_blocks(page)))


def anchors_of(page: Path) -> set[str]:
    """The fragments that lead to the headings of a page, as mkdocs makes them."""
    headings = re.findall(r"^#+ (.+)$", _without_blocks(page), re.MULTILINE)
    words = (re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings)
    return {re.sub(r"[-\s]+", "-", text) for text in words}


def _without_blocks(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))
