"""How TensorFlow is imported; which backend Keras runs on is in tests/integration/test_jax.py."""

from __future__ import annotations

import gc
import importlib
import sys

import pytest

from litelambda.keras_tools import backend


def test_an_import_leaves_out_what_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if it were not installed; what is imported already stays, and nothing is collected meanwhile."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with backend._quick_import(["colorsys", "json"]):
        assert not gc.isenabled()
        importlib.import_module("json")
        with pytest.raises(ImportError):
            importlib.import_module("colorsys")
    assert gc.isenabled()
    assert importlib.import_module("colorsys").hsv_to_rgb(0, 0, 1) == (1, 1, 1)


def test_an_import_that_fails_leaves_everything_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was left out can be imported, and garbage is collected again."""
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with pytest.raises(OSError, match="no such library"), backend._quick_import(["colorsys"]):
        raise OSError("no such library")
    assert gc.isenabled()
    importlib.import_module("colorsys")
