"""The examples in docstrings: each of them runs and prints what it says."""

from __future__ import annotations

import doctest
import importlib
import re

import pytest

from litelambda.common.paths import FUNCTIONS, PROJECT

ROOTS = (FUNCTIONS, PROJECT / "build")
MODULES = sorted(
    ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
    for root in ROOTS
    for path in root.rglob("*.py")
    if re.search(r"^\s*>>> ", path.read_text(), re.MULTILINE)
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_true(name):
    """Every example of a module prints what its docstring says."""
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert attempted
    assert not failed
