"""An estimate as text and as JSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from litelambda.common.wording import columns, counted
from litelambda.costs.bill_lines import Bill
from litelambda.costs.bills import PLATFORMS
from litelambda.costs.case import ARCHITECTURES
from litelambda.costs.estimate import Estimate
from litelambda.costs.prices import Price

_SHOWN_LINES = 4
_SLOW_STORE_MS = 10.0


def to_json(estimate: Estimate) -> dict[str, Any]:
    """What `--json` prints: everything, and each price that was used."""
    case = estimate.case
    return {
        "model": case.profile.model,
        "measured": asdict(case.profile),
        "load": {**asdict(case.load), "cold_starts": round(case.cold_starts, 1)},
        "function": {
            "memory_mb": case.memory_mb,
            "recommended_mb": estimate.recommended_mb,
            "reason": estimate.reason,
            "architecture": case.architecture,
            "sizes": [asdict(size) for size in estimate.sizes],
        },
        "region": case.prices.region,
        "free_tier": case.free_tier,
        "platforms": {
            name: {
                "title": PLATFORMS[name].title,
                "usd": round(offer.bill.usd, 4),
                "usd_low": round(offer.low_usd, 4),
                "usd_high": round(offer.high_usd, 4),
                "lines": [
                    {"what": line.what, "quantity": line.quantity, "price": line.price.key, "usd": round(line.usd, 6)}
                    for line in offer.bill.lines
                ],
                "notes": list(offer.bill.notes),
            }
            for name, offer in estimate.offers.items()
        },
        "left_out": dict(estimate.left_out),
        "cheapest": [
            {"platform": each.platform, "up_to_requests": round(each.up_to) if math.isfinite(each.up_to) else None}
            for each in estimate.cheapest
        ],
        "prices": [_price(price) for price in case.prices.used],
        "warnings": list(estimate.warnings),
        "assumptions": assumptions(estimate),
    }


def _price(price: Price) -> dict[str, Any]:
    return {**asdict(price), "read": price.read.isoformat()}


def describe(estimate: Estimate) -> str:
    """What a person reads in a terminal."""
    return "\n".join(_paragraphs(estimate))


def _paragraphs(estimate: Estimate) -> Iterator[str]:
    case, load = estimate.case, estimate.case.load
    yield f"{case.profile.model}, {case.profile.case}, measured on {case.profile.source}"
    cold = case.cold_starts / load.requests if load.requests else 0.0
    yield (
        f"{load.requests:,.0f} requests a month, {_rate(load.peak_rate)} per second in the busiest hour, "
        f"{_percent(cold)} of them cold" + (f"; {load.batch_rows:,.0f} batch rows" if load.batch_rows else "")
    )
    yield from (f"of the measurement: {note}" for note in case.profile.notes)
    yield "\nLambda itself by memory, in USD a month\n"
    yield _sizes(estimate)
    yield f"\nrecommended: {estimate.recommended_mb} MB, {estimate.reason}"
    if case.memory_mb != estimate.recommended_mb:
        yield f"billed below: {case.memory_mb} MB, as asked for"
    free = "free tiers counted" if case.free_tier else "free tiers not counted"
    yield f"\nUSD a month, {case.prices.region} and the regions of other clouds that go with it, {free}\n"
    yield _offers(estimate)
    yield "\nthe cheapest, by requests a month\n"
    yield _cheapest(estimate)
    for name, why in estimate.left_out.items():
        yield f"not billed: {PLATFORMS[name].title}: {why}"
    yield "\nassumed"
    yield from (f"- {line}" for line in assumptions(estimate))
    unverified = sum(price.unverified for price in case.prices.used)
    used = counted(len(case.prices.used), "price")
    yield f"\n{used} used, {unverified} of them unverified; each with its source and date: --json"
    yield from (f"- {line}" for line in estimate.warnings)


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"


def _rate(rate: float) -> str:
    return f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"


def _sizes(estimate: Estimate) -> str:
    head = ("MEMORY", "WARM MS", "P99 MS", "COLD MS", "ARM64", "X86_64", "")
    rows = [
        (
            f"{size.memory_mb} MB",
            f"{size.warm_ms:.2f}",
            f"{size.worst_ms:.2f}",
            f"{size.cold_ms:.0f}",
            *(f"{size.usd[each]:,.3f}" if each in size.usd else "" for each in ARCHITECTURES),
            "recommended" if size.memory_mb == estimate.recommended_mb else "",
        )
        for size in estimate.sizes
    ]
    return columns([head, *rows], right=range(1, 6))


def _offers(estimate: Estimate) -> str:
    head = ("PLATFORM", "USD", "FROM", "TO", "MOST OF IT")
    rows = [
        (
            PLATFORMS[name].title,
            f"{offer.bill.usd:,.2f}",
            f"{offer.low_usd:,.2f}",
            f"{offer.high_usd:,.2f}",
            _most(offer.bill),
        )
        for name, offer in estimate.offers.items()
    ]
    notes = [
        f"{PLATFORMS[name].title}: {'; '.join(filter(None, [*offer.bill.notes, PLATFORMS[name].closed]))}"
        for name, offer in estimate.offers.items()
        if offer.bill.notes
    ]
    return "\n".join([columns([head, *rows], right=(1, 2, 3)), "", *notes])


def _most(bill: Bill) -> str:
    lines = sorted((line for line in bill.lines if line.usd >= 0.005), key=lambda line: -line.usd)
    return ", ".join(f"{line.what} {line.usd:,.2f}" for line in lines[:_SHOWN_LINES])


def _cheapest(estimate: Estimate) -> str:
    lines = []
    for each in estimate.cheapest:
        up_to = f"up to {each.up_to:,.0f}" if math.isfinite(each.up_to) else "beyond"
        lines.append((up_to, PLATFORMS[each.platform].title))
    return columns(lines, right=[0])


def assumptions(estimate: Estimate) -> list[str]:
    """What is not known, and was taken for true."""
    case, load, profile = estimate.case, estimate.case.load, estimate.case.profile
    lines = [
        f"a vCPU takes {case.cpu_factor:g} times as long as a core of the machine that measured (--cpu-factor), arm64 "
        "as x86_64, and a container as the function: its HTTP server is not measured here",
        "below 1,769 MB a function's time grows as its share of a vCPU shrinks, which overstates requests of less than "
        "some 20 ms; above, one thread gains nothing",
        "INIT has a whole vCPU at any size, is billed, and reads three objects from the store",
        "every day is the same, and requests arrive at random within an hour",
    ]
    if load.cold_share is None:
        lines.append(
            f"an environment is kept {load.idle_s:,.0f} s after its last request (--idle-s), 900 and 300 in the range"
        )
    if profile.store_ms < _SLOW_STORE_MS:
        lines.append(
            f"INIT was measured with a store that answers after {profile.store_ms:g} ms; S3 takes about 30: "
            "measure with --store-latency-ms 30"
        )
    lines += [
        "the range has the 99th percentile of requests and the slowest start at its end, not what prices may become",
        f"a request is {load.request_bytes:,} bytes, an answer {load.response_bytes:,}, all of which leaves the cloud, "
        f"and a log line {case.log_bytes:,}",
        f"metrics of CloudWatch with a value in every hour with requests: {case.metrics} (--metrics); the function has "
        "one, and a value only in hours in which a request fails by its fault",
        "LOG_LEVEL=WARNING saves the function's log of requests that did not fail",
        "one region, one version in the store, list prices, no taxes, discounts, savings plans, domains, keys, alarms, "
        "dashboards or deployments",
    ]
    return lines
