"""The recommended size, the order of the platforms, and what is said with them."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import pytest

from litelambda.common.errors import UsageError
from litelambda.costs.bills import PLATFORMS
from litelambda.costs.estimate import make_estimate
from litelambda.costs.estimate_output import describe, to_json
from litelambda.costs.prices import Prices, load_prices
from support.costs import PROFILE, make_case

TODAY = date(2026, 10, 1)


def test_the_fastest_size_that_is_worth_it_is_recommended() -> None:
    """2 ms: at 128 MB 28 ms x 0.125 GB, 3.5 MB-s; at 1,769 MB 2 ms x 1.73 GB, 3.46: whole vCPUs cost no more."""
    estimate = make_estimate(make_case(), today=TODAY)
    assert [size.memory_mb for size in estimate.sizes][:3] == [128, 192, 256]
    assert (estimate.recommended_mb, estimate.case.memory_mb) == (1769, 1769)
    whole = estimate.sizes[-1]
    assert (whole.warm_ms, whole.worst_ms, whole.cold_ms) == pytest.approx((2, 4, 105))


def test_a_size_that_costs_more_than_it_gains_is_not_recommended() -> None:
    """INIT takes as long at any size: where it is nearly all that is billed, memory is what costs."""
    case = replace(make_case(), profile=replace(PROFILE, init=replace(PROFILE.init, ms=9000)))
    assert make_estimate(case, today=TODAY).recommended_mb == 128


def test_memory_and_latency_bound_the_sizes() -> None:
    """A function has a quarter more memory than the artifact took, and is as fast as it has to be."""
    case = replace(make_case(), profile=replace(PROFILE, rss_mb=1600.0))
    assert [size.memory_mb for size in make_estimate(case, today=TODAY).sizes] == [2048]
    with pytest.raises(UsageError, match="10,240 MB at most: use a smaller model"):
        make_estimate(replace(case, profile=replace(PROFILE, rss_mb=9000.0)))
    slow = replace(make_case(), profile=replace(PROFILE, init=replace(PROFILE.init, ms=9000)))
    assert make_estimate(slow, latency_ms=20, today=TODAY).recommended_mb == 384  # 4 ms x 1,769 / 384 = 18.4 ms
    with pytest.raises(
        UsageError, match=r"at 1769 MB the 99th percentile takes 4\.0 ms\. Allow more, or use a smaller"
    ):
        make_estimate(slow, latency_ms=3)


def test_platforms_come_by_price_with_a_range() -> None:
    """The cheapest first, each between its least and its most."""
    estimate = make_estimate(make_case(), today=TODAY)
    bills = [offer.bill.usd for offer in estimate.offers.values()]
    assert bills == sorted(bills)
    assert estimate.offers.keys() == PLATFORMS.keys()
    assert all(offer.low_usd <= offer.bill.usd <= offer.high_usd for offer in estimate.offers.values())


def test_where_the_cheapest_changes_both_cost_the_same() -> None:
    """At each break-even load the two platforms' bills are equal, and App Runner, which is closed, is not offered."""
    estimate = make_estimate(make_case(), today=TODAY)
    assert len(estimate.cheapest) >= 3
    assert "app-runner" not in {each.platform for each in estimate.cheapest}
    for before, after in zip(estimate.cheapest, estimate.cheapest[1:], strict=False):
        load = replace(estimate.case.load, requests=before.up_to)
        one, other = (
            PLATFORMS[name].bill(replace(estimate.case, load=load)).usd for name in (before.platform, after.platform)
        )
        assert one == pytest.approx(other, rel=1e-3)


def test_a_platform_without_prices_is_left_out_and_named() -> None:
    """A region of which only Lambda's prices are known has Lambda's bills."""
    known = {price.key: price for price in load_prices() if not price.key.startswith(("cloud-run", "fargate"))}
    estimate = make_estimate(replace(make_case(), prices=Prices("here-1", known)), today=TODAY)
    assert estimate.left_out.keys() == {"cloud-run", "fargate"}
    assert "no price fargate.vcpu-arm64 in here-1: write [here-1.fargate.vcpu-arm64]" in describe(estimate)


def test_without_any_platforms_prices_all_that_miss_are_named() -> None:
    """So that a file for another region is written once."""
    known = {price.key: price for price in load_prices() if price.key in ("lambda.requests", "lambda.arm64")}
    with pytest.raises(UsageError) as refused:
        make_estimate(replace(make_case(), prices=Prices("here-1", known)))
    assert str(refused.value) == (
        "no platform has all its prices in here-1: a function URL alone needs transfer.out, logs.ingested, "
        "logs.stored, logs.metrics, s3.storage, s3.get too. Write tables such as [here-1.transfer.out] into a "
        "file and pass --prices FILE"
    )


def test_a_platform_that_cannot_take_the_load_has_no_bill() -> None:
    """The limit is named."""
    large = make_estimate(replace(make_case(), profile=replace(PROFILE, rss_mb=2000.0)), today=TODAY)
    assert large.left_out.keys() == {"ec2", "ec2-balanced"}
    assert large.left_out["ec2"] == "memory is 1,536 MB at most, and this load needs 2,500 MB"


def test_what_is_old_unverified_or_assumed_is_said() -> None:
    """At the end of the table, with the page to check."""
    said = describe(make_estimate(make_case(), today=TODAY))
    assert "snapstart.cached was read 338 days ago, on 2025-10-28: check https://aws.amazon.com/lambda/pricing/" in said
    assert "lambda.requests was read" not in said
    assert "sagemaker.data is unverified, from memory or an undated copy: check https://" in said
    assert "4 of them unverified" in said
    assert "free tiers not counted" in said
    later = describe(make_estimate(make_case(), today=date(2027, 6, 1)))
    assert "lambda.requests was read 268 days ago" in later


def test_json_has_every_line_and_every_price() -> None:
    """A bill's lines add up, and each names a price that is listed with its source and date."""
    document = to_json(make_estimate(make_case(), today=TODAY))
    prices = {price["key"]: price for price in document["prices"]}
    assert prices["lambda.requests"]["read"] == "2026-09-06"
    for platform in document["platforms"].values():
        assert sum(line["usd"] for line in platform["lines"]) == pytest.approx(platform["usd"], abs=1e-3)
        assert {line["price"] for line in platform["lines"]} <= prices.keys()
    assert document["function"]["recommended_mb"] == 1769
    assert document["cheapest"][-1]["up_to_requests"] is None
