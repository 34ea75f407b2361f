"""`limits.toml`: what platforms document of themselves, each fact with its source and the day it was read."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Facts", "Limit", "Source", "load_facts"]

_TABLE = Path(__file__).with_name("limits.toml")


@dataclass(frozen=True)
class Source:
    """Where something stands, and the day on which it stood there.

    Attributes:
        page: its address, or what measured it.
        read: the day; None where a measurement does not say.
        unverified: whether no dated reading of it is known.
    """

    page: str
    read: date | None
    unverified: bool = False


@dataclass(frozen=True)
class Limit:
    """A bound on a load.

    Attributes:
        of: what it bounds.
        most: how much of it.
        adjustable: whether a support request raises it.
        source: where it stands.
    """

    of: str
    most: float
    adjustable: bool
    source: Source


@dataclass(frozen=True)
class Facts:
    """What a platform says of itself: by question, a text and its source; and its limits."""

    texts: Mapping[str, tuple[str, Source]]
    limits: tuple[Limit, ...]


@cache
def load_facts() -> dict[str, Facts]:
    """Read the table: the facts by platform."""
    table = tomllib.loads(_TABLE.read_text(encoding="utf-8"))
    return {name: _facts(_whole(name, table)) for name in table}


def _whole(name: str, table: Mapping[str, Any]) -> dict[str, Any]:
    """A platform's own facts over those of the platform that it is like; limits of both."""
    own = table[name]
    if "like" not in own:
        return dict(own)
    base = _whole(own["like"], table)
    return {**base, **own, "limits": [*base.get("limits", []), *own.get("limits", [])]}


def _facts(fields: Mapping[str, Any]) -> Facts:
    unverified = fields.get("unverified", False)
    texts = {
        question: (
            fields[question],
            Source(
                fields[f"{question}_source"],
                fields.get(f"{question}_read", fields["read"]),
                fields.get(f"{question}_unverified", unverified),
            ),
        )
        for question in ("scaling", "security", "support")
        if question in fields
    }
    limits = tuple(
        Limit(
            each["of"],
            each["most"],
            each.get("adjustable", False),
            Source(each["source"], fields["read"], each.get("unverified", unverified)),
        )
        for each in fields["limits"]
    )
    return Facts(texts, limits)
