"""The examples in docstrings are true."""

from __future__ import annotations

import doctest
import importlib

import pytest

from litelambda.common.paths import FUNCTIONS, PROJECT

WITH_EXAMPLES = sorted(
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    for root in (PROJECT / "build", FUNCTIONS)
    for path in root.rglob("*.py")
    if ".venv" not in path.parts and ">>> " in path.read_text()
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_examples_are_true(name: str) -> None:
    """What a docstring shows is what Python prints."""
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.ELLIPSIS)
    assert results.attempted > 0
    assert results.failed == 0
