"""The price table: complete, dated, changed by a user's file, and honest about its age."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import pytest

from litelambda.common.errors import UsageError
from litelambda.costs.prices import OLD_DAYS, MissingPriceError, load_prices

OWN = """
[us-east-1.lambda.requests]
value = 0.30
per = 1_000_000
unit = "requests"
source = "https://example.com/contract"
read = 2026-11-01

[eu-west-1.lambda.requests]
value = 0.21
per = 1_000_000
unit = "requests"
source = "https://aws.amazon.com/lambda/pricing/"
read = 2026-11-01
"""


def test_every_price_has_its_source_and_date() -> None:
    """A price without a page and a day is a rumor; none is dated in the future of the newest reading."""
    prices = list(load_prices())
    assert len(prices) >= 40
    assert [price.key for price in prices if not price.source.startswith("https://")] == []
    assert [price.key for price in prices if not date(2024, 1, 1) <= price.read <= date(2026, 11, 29)] == []
    assert {price.region for price in prices} == {"us-east-1", "us-central1", "westus2"}


def test_a_file_changes_a_price_and_adds_a_region(tmp_path: Path) -> None:
    """Its tables replace those of the same name, and leave the others."""
    (tmp_path / "own.toml").write_text(OWN)
    here = load_prices(path=tmp_path / "own.toml")
    assert (here["lambda.requests"].value, here["lambda.arm64"].value) == (0.30, 0.0000133334)
    there = load_prices("eu-west-1", tmp_path / "own.toml")
    assert there["lambda.requests"].value == 0.21
    with pytest.raises(
        MissingPriceError, match=r"no price api\.http in eu-west-1: write \[eu-west-1\.api\.http\] into"
    ):
        there["api.http"]


def test_old_prices_say_so_when_they_are_used() -> None:
    """From the day after the 180th on, and only those that a bill asked for."""
    prices = load_prices()
    read = prices["lambda.requests"].read
    assert prices.warnings(read + timedelta(days=OLD_DAYS)) == []
    assert prices.warnings(read + timedelta(days=OLD_DAYS + 1)) == [
        "lambda.requests was read 181 days ago, on 2026-09-06: check https://aws.amazon.com/lambda/pricing/"
    ]


def test_unverified_prices_say_so_when_they_are_used() -> None:
    """However new they are."""
    prices = load_prices()
    assert prices["azure-transfer.out"].unverified
    assert prices.warnings(date(2026, 11, 29)) == [
        "azure-transfer.out is unverified, from memory or an undated copy: "
        "check https://azure.microsoft.com/en-us/pricing/details/bandwidth/"
    ]


PRICE = 'value = 1\nunit = "hours"\nsource = "https://example.com"\nread = 2026-01-01\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "[us-east-1.a.b]\nvalue = 1",
            r"\[us-east-1\.a\.b\] has no unit, source, read: give it value, unit, source, read",
        ),
        (f"[us-east-1.a.b]\n{PRICE}prize = 1", r"has unknown fields prize: use value, unit"),
        (f"[us-east-1.a.b]\n{PRICE}".replace("value = 1", "value = -1"), "has value = -1: use a number of 0 or more"),
        (f"[us-east-1.a.b]\n{PRICE}".replace("value = 1", "value = true"), "has value = True: use a number"),
        (
            f"[us-east-1.a.b]\n{PRICE}".replace("2026-01-01", "'2026'"),
            "has read = '2026': use a date such as 2026-09-06",
        ),
        (f"[us-east-1.a.b]\n{PRICE}per = 0", "has per = 0: use the number of units that the price is for"),
        (
            f"[us-east-1.a.b]\n{PRICE}tiers = [[2, 1], [1, 2]]",
            r"use pairs such as \[\[6e9, 0\.000015\]\], the smallest",
        ),
        ("us-east-1 = {a = {b = 3}}", r"\[us-east-1\.a\.b\] is not a table: give it value, unit, source, read"),
        ("[us-east-1", r"--prices .*own\.toml: "),
    ],
)
def test_a_wrong_file_is_refused(text: str, said: str, tmp_path: Path) -> None:
    """The message names the table, what is wrong, and what to write."""
    (tmp_path / "own.toml").write_text(text)
    with pytest.raises(UsageError, match=said):
        load_prices(path=tmp_path / "own.toml")


def test_an_unknown_region_is_refused() -> None:
    """No other region's prices are taken in its place."""
    with pytest.raises(UsageError, match="no prices for the region 'mars-1': use us-east-1, or write tables such as"):
        load_prices("mars-1")
