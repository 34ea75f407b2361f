"""What tests read in Markdown pages: blocks of code, links and the anchors of headings."""

from __future__ import annotations

import re
import shlex
from itertools import zip_longest
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


class Example(NamedTuple):
    """A command of a page, whole, and what the page shows that it prints: a block, or None."""

    command: str
    output: Block | None


SHELLS = ("sh", "console")
"""Languages of blocks for the shell: of the second, the lines without a prompt are output."""


def read_examples(page: Path, languages: tuple[str, ...] = SHELLS) -> list[Example]:
    """Every command in the blocks of these languages.

    What the last one of a block prints is the block of JSON or text that follows it with nothing but an empty line in
    between.
    """
    text = page.read_text(encoding="utf-8")
    fences = list(_FENCE.finditer(text))
    found: list[Example] = []
    for fence, following in zip_longest(fences, fences[1:]):
        if fence[1] in languages:
            examples = split_commands(fence[3], prompt="$ " if fence[1] == "console" else "")
            if following and following[1] in ("json", "text") and not text[fence.end() : following.start()].strip():
                examples[-1] = examples[-1]._replace(output=Block(*following.groups()))
            found += examples
    return found


def split_commands(text: str, prompt: str = "") -> list[Example]:
    r"""The commands of a block, each with its further lines: those after a backslash or inside of quotes.

    >>> [each.command for each in split_commands("echo 'a 1'  # prints\nls\n")]
    ["echo 'a 1'  # prints", 'ls']
    >>> split_commands("$ echo a\na\n", prompt="$ ")
    [Example(command='echo a', output=Block(language='text', title='', text='a\n'))]
    """
    found: list[Example] = []
    begun = ""
    for line in text.splitlines():
        if not begun and prompt and not line.startswith(prompt):
            shown = found[-1].output.text if found[-1].output else ""
            found[-1] = found[-1]._replace(output=Block("text", "", f"{shown}{line}\n"))
            continue
        begun += line if begun else line.removeprefix(prompt)
        if _is_whole(begun):
            found.append(Example(begun, None))
            begun = ""
        else:
            begun += "\n"
    assert not begun, f"this command does not end: {begun}"
    return [each for each in found if words_of(each.command)]


def words_of(command: str) -> list[str]:
    """The words of a command without its comment, as a shell splits them before it expands anything."""
    return shlex.split(command, comments=True)


def _is_whole(text: str) -> bool:
    try:
        words_of(text)
    except ValueError:  # inside of quotes
        return False
    in_array = re.match(r"\w+=\(", text) and not text.endswith(")")
    return not in_array and not text.endswith("\\")


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
