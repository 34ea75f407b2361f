"""Whether a platform takes a load: its documented limits against what the artifact and the load need."""

from __future__ import annotations

from collections.abc import Iterator

from litelambda.costs.case import Case, vcpu_share
from litelambda.costs.limits import Limit, load_facts
from litelambda.costs.load import concurrency

__all__ = ["HEADROOM", "misfits", "needed_quotas"]

HEADROOM = 1.25
"""The least memory of a function, by what the artifact took."""

_SUBJECTS = {
    "request_bytes": "a request is",
    "response_bytes": "an answer is",
    "seconds": "a request takes",
    "memory_mb": "memory is",
    "concurrency": "requests at once are",
    "requests_per_s": "a second has",
}
_UNITS = {"request_bytes": " bytes", "response_bytes": " bytes", "seconds": " s", "memory_mb": " MB"}


def misfits(platform: str, case: Case) -> list[str]:
    """Why a platform cannot take the load; nothing where it can."""
    needs = _needs(case)
    return [
        f"{_words(limit)}, and this load needs {_amount(limit.of, needs[limit.of])}"
        for limit in _exceeded(platform, case)
        if not limit.adjustable
    ]


def needed_quotas(platform: str, case: Case) -> list[str]:
    """The quotas that the platform has to raise before it takes the load."""
    return [f"raise the quota: {_words(limit)}" for limit in _exceeded(platform, case) if limit.adjustable]


def _exceeded(platform: str, case: Case) -> Iterator[Limit]:
    needs = _needs(case)
    return (limit for limit in load_facts()[platform].limits if needs[limit.of] > limit.most)


def _needs(case: Case) -> dict[str, float]:
    """What of each limit the load takes, at its worst."""
    worst, share = case.bounded(1), vcpu_share(case.memory_mb)
    return {
        "request_bytes": case.load.request_bytes,
        "response_bytes": case.load.response_bytes,
        "seconds": (worst.init_ms + worst.first_ms / share) / 1000,
        "memory_mb": case.profile.rss_mb * HEADROOM,
        "concurrency": concurrency(case.load.peak_rate, case.warm_ms / share / 1000),
        "requests_per_s": case.load.peak_rate,
    }


def _words(limit: Limit) -> str:
    return f"{_SUBJECTS[limit.of]} {_amount(limit.of, limit.most)} at most"


def _amount(of: str, value: float) -> str:
    unit = " requests" if of == "requests_per_s" else _UNITS.get(of, "")
    return f"{value:,.3g}{unit}" if value < 100 else f"{value:,.0f}{unit}"
