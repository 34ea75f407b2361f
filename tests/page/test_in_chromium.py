"""The page in a real, headless Chromium: each check of `checks.py` is a test here."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

CHECKS = re.findall(r"^def (check_\w+)", Path(__file__).with_name("checks.py").read_text(), re.MULTILINE)


@pytest.mark.parametrize("check", CHECKS)
def test_in_chromium(results: dict[str, str], check: str) -> None:
    """What people do on the page works."""
    assert not results[check], results[check]
