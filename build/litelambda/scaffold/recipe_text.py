"""A recipe as the text of a TOML file, with the reasons of what was chosen as comments."""

from __future__ import annotations

from typing import Any

from litelambda.scaffold.project import Found
from litelambda.scaffold.toml_values import toml_value

_ORDER = ("model", "import", "data", "train", "quantize", "gate", "publish")
_FIRST = ("builder", "format", "path")


def recipe_text(found: Found, summary: str) -> str:
    """The file.

    Args:
        found: the recipe's tables, and what is said about their values.
        summary: what it is for; its first line.
    """
    reasons = {guess.key: guess.reason for guess in found.guesses} | found.comments
    parts = [f"# {summary}\n#   litelambda build"]
    for section in sorted(found.tables, key=_ORDER.index):
        keys = sorted(found.tables[section].items(), key=lambda item: item[0] not in _FIRST)
        lines = [_line(key, value, reasons.get(f"{section}.{key}", "")) for key, value in keys]
        parts.append("\n".join([f"[{section}]", *lines]))
    return "\n\n".join(parts) + "\n"


def _line(key: str, value: Any, comment: str) -> str:
    line = f"{key} = {toml_value(value)}"
    return f"{line}  # {comment}" if comment else line
