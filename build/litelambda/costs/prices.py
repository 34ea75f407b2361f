"""The price table: `prices.toml`, with what a user's own file changes in it.

A price knows its source and the day on which it was read there, and says when that is long ago. It does not know what
is bought: that is for the bills.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from litelambda.common.errors import UsageError

__all__ = ["DEFAULT_REGION", "OLD_DAYS", "MissingPriceError", "Price", "Prices", "load_prices"]

DEFAULT_REGION = "us-east-1"
OLD_DAYS = 180
"""A price that was read longer ago says so."""

_TABLE = Path(__file__).with_name("prices.toml")
_BESIDE = "beside"
_FIELDS: dict[str, type | tuple[type, ...]] = {
    "value": (int, float),
    "unit": str,
    "source": str,
    "read": date,
    "per": (int, float),
    "free": (int, float),
    "tiers": list,
    "unverified": bool,
}
_REQUIRED = ("value", "unit", "source", "read")


class MissingPriceError(UsageError):
    """The table has no price for what a platform bills."""


@dataclass(frozen=True)
class Price:
    """One price.

    Attributes:
        key: its service and item, such as `lambda.requests`.
        region: where it holds.
        value: USD for `per` units.
        unit: what is counted.
        source: the provider's page.
        read: the day on which the page, or the price list that it shows, had it.
        per: how many units `value` is for.
        free: units a month that cost nothing in the free tier.
        tiers: pairs of a number of units a month, and the value beyond it.
        unverified: whether no dated reading of it is known.
    """

    key: str
    region: str
    value: float
    unit: str
    source: str
    read: date
    per: float = 1
    free: float = 0
    tiers: tuple[tuple[float, float], ...] = ()
    unverified: bool = False

    def cost(self, quantity: float, *, free_tier: bool = False) -> float:
        """USD for so many units in one month.

        Example:
            >>> from datetime import date
            >>> price = Price("lambda.requests", "us-east-1", 0.20, "requests", "", date(2026, 9, 6), per=1_000_000)
            >>> round(price.cost(3_000_000), 6)
            0.6
        """
        left = quantity - min(quantity, self.free) if free_tier else quantity
        usd = 0.0
        for start, value in reversed(((0.0, self.value), *self.tiers)):
            usd += max(left - start, 0.0) / self.per * value
            left = min(left, start)
        return usd

    def age_days(self, today: date) -> int:
        """How long ago it was read."""
        return (today - self.read).days

    def describe(self) -> str:
        """The price, as a person reads it.

        Example:
            >>> from datetime import date
            >>> Price("lambda.requests", "us-east-1", 0.2, "requests", "", date(2026, 9, 6), per=1e6).describe()
            '0.2 USD per 1,000,000 requests'
        """
        amount = f"{self.value:.10f}".rstrip("0").rstrip(".")
        return f"{amount} USD per {self.per:,.0f} {self.unit}" if self.per != 1 else f"{amount} USD for {self.unit}"


class Prices:
    """The prices of a region, and of the regions of other clouds that go with it; remembers which were asked for."""

    def __init__(self, region: str, prices: Mapping[str, Price]) -> None:
        self.region = region
        self._prices = prices
        self._used: dict[str, Price] = {}

    def __getitem__(self, key: str) -> Price:
        """A price.

        Raises:
            MissingPriceError: the table has none of this name for the region.
        """
        if key not in self._prices:
            raise MissingPriceError(
                f"no price {key} in {self.region}: write [{self.region}.{key}] into a file and pass --prices FILE"
            )
        return self._used.setdefault(key, self._prices[key])

    def __contains__(self, key: str) -> bool:
        """Whether there is a price of this name."""
        return key in self._prices

    def __iter__(self) -> Iterator[Price]:
        """All of them."""
        return iter(self._prices.values())

    @property
    def used(self) -> list[Price]:
        """Those that were asked for, in that order."""
        return list(self._used.values())

    def warnings(self, today: date) -> list[str]:
        """What to know of the prices that were asked for: which are old, and which no reading confirms."""
        old = [price for price in self.used if not price.unverified and price.age_days(today) > OLD_DAYS]
        unverified = [price for price in self.used if price.unverified]
        lines = [
            f"{price.key} was read {price.age_days(today)} days ago, on {price.read}: check {price.source}"
            for price in old
        ]
        return lines + [
            f"{price.key} is unverified, from memory or an undated copy: check {price.source}" for price in unverified
        ]


def load_prices(region: str = DEFAULT_REGION, path: Path | None = None) -> Prices:
    """Read the table, and what a file of the user's changes in it.

    Args:
        region: a region of AWS.
        path: a file of the same form, whose tables replace those of the same name and add others.

    Returns:
        The prices of that region.

    Raises:
        UsageError: the file cannot be read, a price in it is not of that form, or no price is known for the region.
    """
    tables = [_read(_TABLE), *([_read(path)] if path else [])]
    beside: dict[str, str] = {}
    for table in tables:
        beside |= table.get(_BESIDE, {}).get(region, {})
    prices: dict[str, Price] = {}
    for place in (region, *beside.values()):
        for table, file in zip(tables, (_TABLE, path), strict=False):
            prices |= {price.key: price for price in _prices_of(table.get(place, {}), place, file)}
    if not prices:
        known = ", ".join(sorted({name for table in tables for name in table.get(_BESIDE, {})}))
        raise UsageError(
            f"no prices for the region {region!r}: use {known}, or write tables such as "
            f"[{region}.lambda.requests] into a file and pass --prices FILE"
        )
    return Prices(region, prices)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise UsageError(f"--prices {path}: {error}") from error


def _prices_of(services: Any, region: str, file: Path | None) -> Iterator[Price]:
    for service, items in services.items():
        for item, fields in items.items() if isinstance(items, dict) else ():
            yield _price(f"{service}.{item}", region, fields, file)


def _price(key: str, region: str, fields: Any, file: Path | None) -> Price:
    where = f"{file}: [{region}.{key}]"
    if not isinstance(fields, dict):
        raise UsageError(f"{where} is not a table: give it {', '.join(_REQUIRED)}")
    if unknown := fields.keys() - _FIELDS.keys():
        raise UsageError(f"{where} has unknown fields {', '.join(sorted(unknown))}: use {', '.join(_FIELDS)}")
    if missing := [name for name in _REQUIRED if name not in fields]:
        raise UsageError(f"{where} has no {', '.join(missing)}: give it {', '.join(_REQUIRED)}")
    for name, value in fields.items():
        if not isinstance(value, _FIELDS[name]) or (isinstance(value, bool) and name != "unverified"):
            raise UsageError(f"{where} has {name} = {value!r}: {_expected(name)}")
        if isinstance(value, int | float) and not 0 <= value < float("inf"):
            raise UsageError(f"{where} has {name} = {value!r}: use a number of 0 or more")
    if fields.get("per") == 0:
        raise UsageError(f"{where} has per = 0: use the number of units that the price is for")
    return Price(key, region, **{**fields, "tiers": _tiers(fields.get("tiers", []), where)})


def _expected(name: str) -> str:
    kinds = {str: "use a text in quotes", date: "use a date such as 2026-09-06", bool: "use true or false"}
    kind = _FIELDS[name]
    return "use a number" if isinstance(kind, tuple) else kinds.get(kind, "use pairs such as [[6e9, 0.000015]]")


def _tiers(pairs: list[Any], where: str) -> tuple[tuple[float, float], ...]:
    tiers = tuple((pair[0], pair[1]) for pair in pairs if isinstance(pair, list) and len(pair) == 2)
    numbers = all(isinstance(number, int | float) and number >= 0 for tier in tiers for number in tier)
    if len(tiers) != len(pairs) or not numbers or list(tiers) != sorted(tiers):
        raise UsageError(f"{where} has tiers = {pairs}: use pairs such as [[6e9, 0.000015]], the smallest first")
    return tiers
