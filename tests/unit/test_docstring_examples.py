"""Docstrings: the examples of public functions run, and give what they say."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
MODULES = sorted(
    ".".join(file.relative_to(PROJECT / root).with_suffix("").parts).removesuffix(".__init__")
    for root in ("build", "functions")
    for file in (PROJECT / root).rglob("*.py")
    if ">>> " in file.read_text(encoding="utf-8")
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the root of a checkout, as a contributor would type them."""
    monkeypatch.chdir(PROJECT)
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    found = doctest.testmod(importlib.import_module(name), optionflags=flags)
    assert found.attempted
    assert not found.failed
