"""Extras: what is installed is enough, what is missing is named."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import pytest

from litelambda.common import extras
from litelambda.common.errors import UsageError
from litelambda.common.extras import require_extra


@pytest.mark.parametrize("extra", ["build", "bench", "jax"])
def test_an_installed_extra_is_enough(extra: str) -> None:
    """All extras of the development environment pass."""
    require_extra(extra)


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the packages that are missing, by their names on the index, and the extra that has them."""

    def find(name: str) -> Any:
        return None if name in ("tensorflow", "ai_edge_quantizer") else find_spec(name)

    monkeypatch.setattr(extras, "find_spec", find)
    with pytest.raises(UsageError) as raised:
        require_extra("build")
    assert str(raised.value) == ("not installed: ai-edge-quantizer, tensorflow. Run `pip install 'litelambda[build]'`")
