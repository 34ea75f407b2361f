"""A model's aliases.json as its writers change it; `litelambda_serving.aliases` is its reader."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from litelambda.common.errors import PublishError
from litelambda_serving.aliases import RESERVED_NAMES
from litelambda_serving.errors import StoreError
from litelambda_serving.manifest import is_valid_name

__all__ = ["Document", "check_alias", "check_shares", "point", "read_document", "set_pins", "target_of"]

Document = dict[str, Any]


def check_alias(alias: str) -> None:
    """Refuse what cannot be the name of an alias.

    Raises:
        PublishError: it cannot.
    """
    if not is_valid_name(alias) or alias.isdecimal() or alias in RESERVED_NAMES:
        raise PublishError(f"invalid alias {alias!r}: use letters, digits, '_', '.' and '-', and not only digits")


def check_shares(alias: str, version: int, canary: Mapping[int, float] | None, shadow: int | None) -> dict[int, float]:
    """The percentages of an alias' canaries.

    Raises:
        PublishError: they are not shares of its requests, or a version is its own canary or shadow.
    """
    shares = dict(canary or {})
    if any(not 0 < percent <= 100 for percent in shares.values()) or sum(shares.values()) > 100:
        raise PublishError(f"the shares of canaries must be over 0 and no more than 100 together, not {shares}")
    if version in shares or shadow == version:
        raise PublishError(f"version {version} is what {alias} points at: it cannot be its own canary or shadow")
    return shares


def read_document(content: bytes, where: str) -> Document:
    """Read the document.

    Raises:
        StoreError: it is not a JSON object.
    """
    try:
        document: Document = json.loads(content)
    except ValueError as error:
        raise StoreError(f"{where} is damaged: {error}") from error
    if not isinstance(document, dict):
        raise StoreError(f"{where} is damaged: it is not a JSON object")
    return document


def point(document: Document, alias: str, version: int, shares: Mapping[int, float], shadow: int | None) -> None:
    """Point an alias at a version, with these canaries and this shadow instead of those that it had."""
    document[alias] = version
    for name, value in (("canary", {str(key): share for key, share in shares.items()}), ("shadow", shadow)):
        others = {key: other for key, other in document.pop(name, {}).items() if key != alias}
        if value:
            others[alias] = value
        if others:
            document[name] = others


def target_of(document: Document, alias: str) -> Any:
    """The version that an alias means, 0 for none; with its canaries and its shadow where it has any.

    >>> target_of({"latest": 7, "stable": 6, "shadow": {"latest": 8}}, "stable")
    6
    >>> target_of({"latest": 7, "stable": 6, "shadow": {"latest": 8}}, "latest")
    {'version': 7, 'shadow': 8}
    """
    target = document.get(alias, 0)
    traffic = {name: document[name][alias] for name in ("canary", "shadow") if alias in document.get(name, {})}
    return {"version": target, **traffic} if traffic else target


def set_pins(document: Document, new: Mapping[str, Mapping[str, str]]) -> None:
    """Add the pins of these versions, with which a server fetches their files at once; drop pins without an alias."""
    pins = {**document.get("versions", {}), **new}
    targets = {str(target) for name, target in document.items() if name not in RESERVED_NAMES}
    targets |= {number for shares in document.get("canary", {}).values() for number in shares}
    targets |= {str(target) for target in document.get("shadow", {}).values()}
    document["versions"] = {number: pins[number] for number in sorted(targets & set(pins), key=int)}
