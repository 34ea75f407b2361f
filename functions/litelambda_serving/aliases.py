"""A model's aliases.json: which version an alias means, and how to fetch it in the fewest round trips.

    {"latest": 7, "stable": 6,
     "versions": {"7": {"manifest_sha256": "…", "artifact": "model.tflite"}, …},
     "canary": {"latest": {"8": 10}},
     "shadow": {"latest": 9}}

Alias names are the top level's integers; `versions`, `canary` and `shadow` are reserved. Every version that an alias, a
canary or a shadow names has its manifest's digest in `versions`: what is served is what was published. The document is
replaced whole and last, so that one read of it is always consistent. Writing it is the toolchain's part.
"""

from __future__ import annotations

import os
from time import time

from litelambda_serving.digest import hexdigest
from litelambda_serving.errors import ArtifactError, ModelNotFoundError, ObjectNotFoundError
from litelambda_serving.json_codec import loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litelambda_serving.store import Store

__all__ = ["ALIASES_NAME", "RESERVED_NAMES", "Aliases", "CachedAliases", "fetch_aliases", "refetch_aliases"]

ALIASES_NAME = "aliases.json"
RESERVED_NAMES = frozenset({"versions", "canary", "shadow"})
"""Keys of the document that are not aliases."""

_MAX_BYTES = 4 * 1024 * 1024
_NAME_SEPARATOR = "\0"  # in no name and in no header: keys of different models never run together


class Aliases:
    """A model's aliases.json.

    Attributes:
        targets: version number by alias.
        pins: by version number, its manifest's digest and its artifact's name; enough to fetch both side by side.
        canaries: by alias, the percentage of its requests that each canary version answers.
        shadows: by alias, the version that also runs each request, whose answers are only compared.
        tag: the store's tag of this document, "" when it gave none.
    """

    __slots__ = ("canaries", "pins", "shadows", "tag", "targets")

    def __init__(
        self,
        targets: Mapping[str, int],
        pins: Mapping[int, tuple[str, str]],
        canaries: Mapping[str, Mapping[int, float]] | None = None,
        shadows: Mapping[str, int] | None = None,
        tag: str = "",
    ) -> None:
        self.targets = targets
        self.pins = pins
        self.canaries = canaries or {}
        self.shadows = shadows or {}
        self.tag = tag

    @classmethod
    def from_json(cls, data: bytes, tag: str = "") -> Aliases:
        """Read an aliases document.

        Raises:
            ArtifactError: it is not one, or it names a version without the digest of its manifest.

        >>> aliases = Aliases.from_json(b'{"latest": 7, "versions": {"7": {"manifest_sha256": "", "artifact": "a"}}}')
        >>> aliases.choose("mnist", "latest")
        7
        """
        try:
            fields = loads(data)
            pins = {int(number): _pin(pin) for number, pin in fields.get("versions", {}).items()}
            targets = {alias: _version(target) for alias, target in fields.items() if _is_scalar(target)}
            canaries = {alias: _percentages(shares) for alias, shares in fields.get("canary", {}).items()}
            shadows = {alias: _version(number) for alias, number in fields.get("shadow", {}).items()}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ArtifactError(f"{ALIASES_NAME} is not an aliases document: {error}") from error
        aliases = cls(targets, pins, canaries, shadows, tag)
        for alias in targets:
            for number in sorted(aliases.reachable(alias) - pins.keys()):
                raise ArtifactError(
                    f"{ALIASES_NAME}: alias {alias!r} reaches version {number}, whose digest is not in 'versions': "
                    "move the alias with `litelambda alias`, which writes both"
                )
        return aliases

    def choose(self, model: str, alias: str, key: str = "") -> int:
        """The version that answers one request for an alias: its target, or a canary for its share of the requests.

        Args:
            model: the model's name.
            alias: one of `targets`.
            key: requests with the same key get the same version while the shares do not change; "" chooses at random.
        """
        shares = self.canaries.get(alias)
        if shares:
            point = _sticky_percent(model, alias, key) if key else _random_percent()
            for number, percent in shares.items():
                point -= percent
                if point < 0:
                    return number
        return self.targets[alias]

    def reachable(self, alias: str) -> set[int]:
        """Every version that a request for an alias can reach, its shadow included; none for an unknown alias."""
        if alias not in self.targets:
            return set()
        shadow = {self.shadows[alias]} if alias in self.shadows else set()
        return {self.targets[alias], *self.canaries.get(alias, ()), *shadow}


class CachedAliases:
    """A model's aliases as this process knows them.

    Attributes:
        model: the model's name.
        aliases: the document as it is served.
        checked: `time.time()` when that was last known to be the store's.
        broken: canaries and shadows that could not be loaded: left out until the next refresh.
    """

    __slots__ = ("aliases", "broken", "checked", "model")

    def __init__(self, model: str, aliases: Aliases) -> None:
        self.model = model
        self.aliases = aliases
        self.checked = time()
        self.broken: set[int] = set()


def fetch_aliases(store: Store, model: str) -> Aliases:
    """Read a model's aliases.

    Raises:
        ModelNotFoundError: the store has no such model.
        StoreError: see `Store.fetch`.
        ArtifactError: the document is damaged.
    """
    aliases = refetch_aliases(store, model, "")
    if aliases is None:
        raise ArtifactError(f"the store reports {model}/{ALIASES_NAME} as unchanged, but no earlier one was named")
    return aliases


def refetch_aliases(store: Store, model: str, tag: str) -> Aliases | None:
    """Read a model's aliases; None, after a round trip without a body, when they still have the tag given.

    Raises:
        ModelNotFoundError, StoreError, ArtifactError: as `fetch_aliases`.
    """
    try:
        found = store.fetch_changed(f"{model}/{ALIASES_NAME}", _MAX_BYTES, tag)
    except ObjectNotFoundError as error:
        raise ModelNotFoundError(f"Servable not found for request: Latest({model})") from error
    return Aliases.from_json(bytes(found[0]), found[1]) if found else None


def _pin(pin: Any) -> tuple[str, str]:
    digest, artifact = pin["manifest_sha256"], pin["artifact"]
    if type(digest) is not str or type(artifact) is not str:
        raise TypeError(f"a version's digest and artifact are text, got {digest!r} and {artifact!r}")
    return digest, artifact


def _is_scalar(value: Any) -> bool:
    """Whether a field of the top level is meant as an alias; other fields may be a later writer's."""
    return type(value) in (int, float, bool, str)


def _version(number: Any) -> int:
    if type(number) is not int or number < 1:
        raise TypeError(f"{number!r} is not the number of a version")
    return number


def _percentages(shares: Any) -> dict[int, float]:
    for percent in shares.values():
        if type(percent) not in (int, float) or not 0 <= percent <= 100:
            raise TypeError(f"{percent!r} is not a canary's percentage")
    return {int(number): float(percent) for number, percent in shares.items()}


def _sticky_percent(model: str, alias: str, key: str) -> float:
    """A number in [0, 100) that depends only on the arguments, the same in every environment."""
    text = _NAME_SEPARATOR.join((model, alias, key))
    return int(hexdigest(text.encode("utf-8", "surrogatepass"))[:8], 16) * 100 / 2**32


def _random_percent() -> float:
    return int.from_bytes(os.urandom(4), "big") * 100 / 2**32
