"""Queries of CloudWatch Logs Insights, and the fields of log lines that they may name."""

from __future__ import annotations

import re
from typing import Any

__all__ = ["asked", "fields_of"]

_WORDS = {"SOURCE", "filter", "stats", "fields", "sort", "desc", "by", "as", "and", "or"}


def asked(query: str) -> set[str]:
    """The fields that a query reads: names that are neither functions, aliases, texts nor words of the language.

    Example:
        >>> sorted(asked("filter Route = 'predict' | stats pct(Latency, 99) as p99 by bin(5m), Model | sort p99"))
        ['Latency', 'Model', 'Route']
    """
    plain = re.sub("'[^']*'|\"[^\"]*\"", "", query)
    aliases = set(re.findall(r"\bas (\w+)", plain))
    return set(re.findall(r"(?<![\w.@])@?[A-Za-z_][\w.]*\b(?!\()", plain)) - aliases - _WORDS


def fields_of(line: dict[str, Any], prefix: str = "") -> set[str]:
    """The names that CloudWatch finds in a JSON line: `init.model_ms` for what is within `init`.

    Example:
        >>> sorted(fields_of({"status": 200, "init": {"model_ms": 1.5}}))
        ['init', 'init.model_ms', 'status']
    """
    names = {f"{prefix}{name}" for name in line}
    for name, value in line.items():
        if isinstance(value, dict):
            names |= fields_of(value, f"{prefix}{name}.")
    return names
