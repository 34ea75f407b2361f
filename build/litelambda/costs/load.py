"""A load: how many requests, when in the day, of what size; and what follows from it before any price is known.

A day is 24 hours with a rate each, every day the same, and requests arrive at random (Poisson) within an hour.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from litelambda.common.errors import UsageError

__all__ = ["DAYS_PER_MONTH", "HOURS_PER_MONTH", "SHAPES", "Load", "concurrency", "parse_shape"]

HOURS_PER_MONTH = 730
DAYS_PER_MONTH = HOURS_PER_MONTH / 24
_HOURS = 24
_SECONDS = 3600.0
_RARE = 0.001  # the share of moments in which more requests are under way than `concurrency` says
_NEGLIGIBLE = 1e-12
_MAX_REQUESTS = 1e12
_LARGE = 500.0  # from here on a Poisson distribution is taken for a normal one


def _office(hour: int) -> float:
    return 0.9 / 8 if 9 <= hour < 17 else 0.1 / 16


def _peak(hour: int) -> float:
    return 0.5 if hour == 20 else 0.5 / 23


SHAPES = {
    "flat": tuple(1 / _HOURS for _hour in range(_HOURS)),
    "office": tuple(_office(hour) for hour in range(_HOURS)),
    "peak": tuple(_peak(hour) for hour in range(_HOURS)),
}
"""The share of a day's requests in each hour: even; 90 % from 9 to 17 o'clock; half within the hour from 20 o'clock."""


def parse_shape(text: str) -> tuple[float, ...]:
    """A shape by its name, or 24 numbers with commas between them, of which only the proportions count.

    Raises:
        UsageError: it is neither.

    Example:
        >>> parse_shape("peak")[20], round(sum(parse_shape("office")), 9)
        (0.5, 1.0)
    """
    if text in SHAPES:
        return SHAPES[text]
    try:
        numbers = [float(number) for number in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != _HOURS or not all(0 <= number < math.inf for number in numbers) or not sum(numbers):
        raise UsageError(f"--shape {text}: use {', '.join(SHAPES)}, or 24 numbers with commas, one for each hour")
    return tuple(number / sum(numbers) for number in numbers)


@dataclass(frozen=True)
class Load:
    """What callers ask for in a month.

    Attributes:
        requests: how many.
        shape: the share of a day's requests in each hour.
        request_bytes: the size of a request's body.
        response_bytes: the size of an answer's body.
        batch_rows: rows that are scored in batches, beside the requests.
        cold_share: the share of requests that start an environment, where it is known; else it is computed.
        idle_s: how long an environment is kept after its last request.
    """

    requests: float
    shape: tuple[float, ...] = SHAPES["flat"]
    request_bytes: int = 1000
    response_bytes: int = 1000
    batch_rows: float = 0
    cold_share: float | None = None
    idle_s: float = 600.0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: a number is negative, not finite, or of no meaning.
        """
        for name in ("requests", "request_bytes", "response_bytes", "batch_rows", "idle_s"):
            if not 0 <= getattr(self, name) <= _MAX_REQUESTS:
                flag = name.replace("_", "-")
                raise UsageError(f"--{flag} {getattr(self, name):g}: use a number from 0 to {_MAX_REQUESTS:,.0f}")
        if self.cold_share is not None and not 0 <= self.cold_share <= 1:
            raise UsageError(f"--cold-share {self.cold_share:g}: use a number from 0 to 1")

    @property
    def rates(self) -> tuple[float, ...]:
        """Requests per second in each hour of the day."""
        per_day = self.requests / DAYS_PER_MONTH
        return tuple(per_day * share / _SECONDS for share in self.shape)

    @property
    def peak_rate(self) -> float:
        """Requests per second in the busiest hour."""
        return max(self.rates)

    def cold_starts(self, busy_s: float, idle_s: float | None = None) -> float:
        """How many requests of the month start an environment.

        Args:
            busy_s: how long an environment is busy with a request.
            idle_s: how long it is kept after that, if not as the load says.
        """
        if self.cold_share is not None:
            return self.requests * self.cold_share
        kept_s = self.idle_s if idle_s is None else idle_s
        return min(self.requests, DAYS_PER_MONTH * sum(_cold_per_day(self.rates, busy_s, kept_s)))


def concurrency(rate: float, busy_s: float) -> int:
    """How many requests are under way at once, but for one moment in a thousand; at least 1.

    Example:
        >>> concurrency(100, 0.010), concurrency(100, 1.0)
        (5, 132)
    """
    offered = rate * busy_s
    if offered > _LARGE:
        return math.ceil(offered + 3.09 * math.sqrt(offered))
    count, term = 0, math.exp(-offered)
    below = term
    while below < 1 - _RARE:
        count += 1
        term *= offered / count
        below += term
    return max(count, 1)


def _cold_per_day(rates: tuple[float, ...], busy_s: float, idle_s: float) -> Iterator[float]:
    """The cold starts of each hour: within it, and of environments that the hour before it did not have."""
    before = _in_one_hour(rates[-1], busy_s, idle_s)[1]
    for rate in rates:
        cold_per_s, kept = _in_one_hour(rate, busy_s, idle_s)
        yield min(cold_per_s * _SECONDS + max(kept - before, 0.0), rate * _SECONDS)
        before = kept


@lru_cache(maxsize=4096)
def _in_one_hour(rate: float, busy_s: float, idle_s: float) -> tuple[float, float]:
    """Cold starts per second at a steady rate, and how many environments are kept meanwhile.

    The first free environment takes a request, so that the n-th one is asked only when those before it are busy. What
    flows over n of them is Erlang's loss formula B; each environment is taken to be asked at random, so that it has
    gone by its next request with the probability that a gap is longer than it is kept.
    """
    cold = kept = 0.0
    blocked, number = 1.0, 0  # B of no environment: all requests flow over
    while rate * blocked > _NEGLIGIBLE and number < 100_000:
        number += 1
        still = rate * busy_s * blocked / (number + rate * busy_s * blocked)
        asked = rate * (blocked - still)
        gone = math.exp(-asked * idle_s)
        cold += asked * gone
        kept += 1 - gone
        blocked = still
    return cold, kept
