"""What only some commands need and a plain `pip install litelambda` has not: the distribution's extras."""

from __future__ import annotations

import re
from importlib.metadata import requires
from importlib.util import find_spec

from litelambda.common.errors import UsageError

__all__ = ["require_extra"]


def require_extra(extra: str) -> None:
    """Check that the packages of an extra are installed.

    Args:
        extra: a name of pyproject.toml's `optional-dependencies`.

    Raises:
        UsageError: some are not; the message names them, and says what to run.
    """
    missing = [name for name in _packages(extra) if find_spec(name.replace("-", "_")) is None]
    if missing:
        raise UsageError(f"not installed: {', '.join(missing)}. Run `pip install 'litelambda[{extra}]'`")


def _packages(extra: str) -> list[str]:
    """Names in the distribution's metadata, whose lines read `tensorflow<2.22,>=2.21; extra == 'build'`."""
    lines = [line for line in requires("litelambda") or () if re.search(rf"extra == ['\"]{extra}['\"]", line)]
    return re.findall(r"^[\w.-]+", "\n".join(lines), re.MULTILINE)
