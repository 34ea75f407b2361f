"""`litelambda choose`: the five questions of which platform, for one artifact under one load.

Performance, scalability, price, security and support: each answer has its source and its date. A platform that cannot
take the load is excluded by the limit that says so; one that was not measured has no rank by performance. Nothing is
added up: how much a question weighs is for the reader.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date

from litelambda.costs.bill_lines import Bill
from litelambda.costs.bills import PLATFORMS
from litelambda.costs.case import Case, vcpu_share
from litelambda.costs.estimate import make_estimate
from litelambda.costs.fit import misfits, needed_quotas
from litelambda.costs.limits import Facts, Source, load_facts
from litelambda.costs.prices import Price

__all__ = ["QUESTIONS", "Answer", "Candidate", "Choice", "make_choice"]

QUESTIONS = ("performance", "scalability", "price", "security", "support")

_MEASURED = ("lambda-http-api", "lambda-rest-api", "lambda-function-url", "lambda-provisioned")
_NOT_MEASURED = "not measured here"


@dataclass(frozen=True)
class Answer:
    """A cell of the table.

    Attributes:
        text: what is known.
        sources: where it stands, or what measured it.
        rank: among the platforms that it is known of, 1 for the best; None where it cannot be ranked.
    """

    text: str
    sources: tuple[Source, ...] = ()
    rank: int | None = None


@dataclass(frozen=True)
class Candidate:
    """A platform, its answers by question, and why it is excluded."""

    answers: Mapping[str, Answer]
    excluded: tuple[str, ...]


@dataclass(frozen=True)
class Choice:
    """The table.

    Attributes:
        case: the artifact, the load, and the function.
        candidates: by platform; those that take the load first, the cheapest first.
        warnings: old and unverified prices.
    """

    case: Case
    candidates: Mapping[str, Candidate]
    warnings: tuple[str, ...]


def make_choice(case: Case, *, memory_mb: int | None = None, today: date | None = None) -> Choice:
    """Answer the five questions.

    Args:
        case: the artifact, the load and the prices.
        memory_mb: of the function; by default the one that `make_estimate` recommends.
        today: the day on which prices are said to be old.

    Raises:
        UsageError: no size is large enough, or no platform has prices.
    """
    estimate = make_estimate(case, memory_mb=memory_mb, today=today)
    case, facts = estimate.case, load_facts()
    excluded = {name: (*filter(None, [PLATFORMS[name].closed]), *misfits(name, case)) for name in PLATFORMS}
    taking = [name for name in PLATFORMS if not excluded[name]]
    prices = {name: offer.bill.usd for name, offer in estimate.offers.items() if name in taking}
    price_ranks = _ranks(prices)
    performance_ranks = _ranks({name: _latency_ms(name, case) for name in taking if name in _MEASURED})
    candidates = {}
    for name in sorted(PLATFORMS, key=lambda each: (bool(excluded[each]), prices.get(each, float("inf")))):
        bill = estimate.offers[name].bill if name in estimate.offers else None
        answers = {
            "performance": _performance(name, case, performance_ranks.get(name)),
            "scalability": _scalability(name, case, facts[name]),
            "price": _price(bill, estimate.left_out.get(name, ""), price_ranks.get(name)),
            **{question: _text(facts[name], question) for question in ("security", "support")},
        }
        candidates[name] = Candidate(answers, excluded[name])
    return Choice(case, candidates, estimate.warnings)


def _ranks(values: Mapping[str, float]) -> dict[str, int]:
    """1 for the smallest; equal values share a rank."""
    ordered = sorted(values.values())
    return {name: 1 + ordered.index(value) for name, value in values.items()}


def _latency_ms(name: str, case: Case) -> float:
    """What a platform is ranked by: the 99th percentile, and where requests start cold, a start's share of it."""
    share = vcpu_share(case.memory_mb)
    cold_share = case.cold_starts / case.load.requests if case.load.requests and name != "lambda-provisioned" else 0.0
    return case.bounded(1).warm_ms / share + cold_share * case.init_ms


def _performance(name: str, case: Case, rank: int | None) -> Answer:
    if name not in _MEASURED:
        return Answer(_NOT_MEASURED)
    share = vcpu_share(case.memory_mb)
    warm_ms, worst_ms = case.warm_ms / share, case.bounded(1).warm_ms / share
    cold_ms = case.init_ms + case.first_ms / share
    cold = "none cold within it" if name == "lambda-provisioned" else f"cold {cold_ms:.0f}"
    text = f"warm {warm_ms:.2g} ms, p99 {worst_ms:.2g}, {cold}; {1000 / warm_ms:,.0f} per second and environment"
    return Answer(text, (Source(f"litelambda bench, {case.profile.source}", None),), rank)


def _scalability(name: str, case: Case, facts: Facts) -> Answer:
    """Its limits against the load: how it grows, and which adjustable quotas have to be raised first."""
    scaling, source = facts.texts["scaling"]
    sources = dict.fromkeys([source, *(limit.source for limit in facts.limits)])
    return Answer("; ".join([scaling, *needed_quotas(name, case)]), tuple(sources))


def _price(bill: Bill | None, left_out: str, rank: int | None) -> Answer:
    if bill is None:
        return Answer(left_out)
    by_page: dict[str, list[Price]] = {}
    for line in bill.lines:
        if line.usd:
            by_page.setdefault(line.price.source, []).append(line.price)
    sources = [
        Source(page, min(price.read for price in prices), any(price.unverified for price in prices))
        for page, prices in by_page.items()
    ]
    return Answer(f"{bill.usd:,.2f} USD a month", tuple(sources), rank)


def _text(facts: Facts, question: str) -> Answer:
    text, source = facts.texts[question]
    return Answer(text, (source,))
