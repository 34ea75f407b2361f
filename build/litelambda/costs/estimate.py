"""`litelambda cost`: the size to give the function, what each platform costs, and up to which load which is cheapest.

It ranks by price alone, and says what it assumed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import date

from litelambda.common.errors import UsageError
from litelambda.costs.bill_lines import Bill, function_lines
from litelambda.costs.bills import PLATFORMS
from litelambda.costs.case import ARCHITECTURES, FULL_CORE_MB, Case, vcpu_share
from litelambda.costs.fit import HEADROOM, misfits
from litelambda.costs.prices import DEFAULT_REGION, MissingPriceError, load_prices

__all__ = ["MEMORY_SIZES", "BreakEven", "Estimate", "Offer", "Size", "make_estimate"]

MEMORY_SIZES = (128, 192, 256, 384, 512, 768, 1024, 1280, 1536, 1769, 2048, 3008, 4096, 6144, 8192, 10240)
_WORTH_IT = 1.10  # a faster size may cost so many times what the cheapest does
_LEAST, _MOST, _STEPS_PER_DECADE = 1e3, 1e9, 5
_BISECTIONS = 20


@dataclass(frozen=True)
class Size:
    """A function of some memory.

    Attributes:
        memory_mb: the memory.
        warm_ms: a request.
        worst_ms: its 99th percentile.
        cold_ms: INIT and the first request.
        usd: a month of Lambda itself, by architecture.
    """

    memory_mb: int
    warm_ms: float
    worst_ms: float
    cold_ms: float
    usd: Mapping[str, float]


@dataclass(frozen=True)
class Offer:
    """A platform's bill, and the range that it may be in."""

    bill: Bill
    low_usd: float
    high_usd: float


@dataclass(frozen=True)
class BreakEven:
    """Up to how many requests a month a platform is the cheapest; without end for the last."""

    platform: str
    up_to: float


@dataclass(frozen=True)
class Estimate:
    """What was found.

    Attributes:
        case: the artifact, the load, and the function as it is billed.
        sizes: functions that have enough memory, and none that gains nothing by its size.
        recommended_mb: the size to give it.
        reason: why that one.
        offers: the bills, by platform, the cheapest first.
        left_out: platforms that lack a price or cannot take the load, and why.
        cheapest: of those that take new customers, by the number of requests, from few to many.
        warnings: old and unverified prices.
    """

    case: Case
    sizes: tuple[Size, ...]
    recommended_mb: int
    reason: str
    offers: Mapping[str, Offer]
    left_out: Mapping[str, str]
    cheapest: tuple[BreakEven, ...]
    warnings: tuple[str, ...]

    def curves(self) -> tuple[list[float], dict[str, list[float]]]:
        """Numbers of requests, and each platform's USD for them."""
        requests = list(_grid())
        return requests, {name: [_usd(self.case, name, each) for each in requests] for name in self.offers}


def make_estimate(
    case: Case, *, memory_mb: int | None = None, latency_ms: float | None = None, today: date | None = None
) -> Estimate:
    """Price one artifact under one load.

    Args:
        case: the artifact, the load and the prices; its memory is replaced.
        memory_mb: of the function; by default the recommended one.
        latency_ms: what the 99th percentile of a warm request may take at most.
        today: the day on which prices are said to be old.

    Raises:
        UsageError: no size is large or fast enough, or no platform has prices.
    """
    sizes = tuple(_sizes(case))
    recommended, reason = _recommend(sizes, case.architecture, latency_ms)
    case = replace(case, memory_mb=memory_mb or recommended)
    offers: dict[str, Offer] = {}
    left_out: dict[str, str] = {}
    for name, platform in PLATFORMS.items():
        if why := misfits(name, case):
            left_out[name] = "; ".join(why)
            continue
        try:
            low, bill, high = (platform.bill(case.bounded(bound)) for bound in (-1, 0, 1))
        except MissingPriceError as error:
            left_out[name] = str(error)
        else:
            offers[name] = Offer(bill, min(low.usd, bill.usd), max(high.usd, bill.usd))
    if not offers:
        raise UsageError(_nothing_to_bill(case, left_out))
    offers = dict(sorted(offers.items(), key=lambda item: item[1].bill.usd))
    return Estimate(
        case,
        sizes,
        recommended,
        reason,
        offers,
        left_out,
        tuple(_cheapest(case, [name for name in offers if not PLATFORMS[name].closed])),
        tuple(case.prices.warnings(today or date.today())),
    )


def _nothing_to_bill(case: Case, left_out: Mapping[str, str]) -> str:
    """Why no platform has a bill: the prices of a function URL that the region lacks, if it is that."""
    known = load_prices(DEFAULT_REGION)
    PLATFORMS["lambda-function-url"].bill(replace(case, prices=known))
    missing = [price.key for price in known.used if price.key not in case.prices]
    if not missing:
        return next(iter(left_out.values()))
    region = case.prices.region
    return (
        f"no platform has all its prices in {region}: a function URL alone needs {', '.join(missing)} too. Write "
        f"tables such as [{region}.{missing[0]}] into a file and pass --prices FILE"
    )


def _sizes(case: Case) -> Iterator[Size]:
    """The sizes that hold the artifact, up to the first with a whole vCPU."""
    needed_mb = case.profile.rss_mb * HEADROOM
    fitting = [memory_mb for memory_mb in MEMORY_SIZES if memory_mb >= needed_mb]
    if not fitting:
        raise UsageError(
            f"{case.profile.model} takes {case.profile.rss_mb:,.0f} MB, and a function has {MEMORY_SIZES[-1]:,} MB at "
            "most: use a smaller model"
        )
    for memory_mb in [each for each in fitting if each <= FULL_CORE_MB] or fitting[:1]:
        sized, share = replace(case, memory_mb=memory_mb), vcpu_share(memory_mb)
        usd = {
            architecture: sum(line.usd for line in function_lines(replace(sized, architecture=architecture)))
            for architecture in ARCHITECTURES
            if f"lambda.{architecture}" in case.prices
        }
        worst_ms = sized.bounded(1).warm_ms / share
        yield Size(memory_mb, sized.warm_ms / share, worst_ms, sized.init_ms + sized.first_ms / share, usd)


def _recommend(sizes: tuple[Size, ...], architecture: str, latency_ms: float | None) -> tuple[int, str]:
    """The fastest size that is worth its price, of those that are fast enough."""
    fast = [size for size in sizes if latency_ms is None or size.worst_ms <= latency_ms]
    if not fast:
        best = sizes[-1]
        raise UsageError(
            f"--latency-ms {latency_ms:g}: at {best.memory_mb} MB the 99th percentile takes {best.worst_ms:.1f} ms. "
            "Allow more, or use a smaller model"
        )
    cheapest = min(size.usd[architecture] for size in fast)
    chosen = max(
        (size for size in fast if size.usd[architecture] <= cheapest * _WORTH_IT), key=lambda size: size.memory_mb
    )
    within = f" of those with a 99th percentile of at most {latency_ms:g} ms" if latency_ms is not None else ""
    return chosen.memory_mb, f"the fastest size within 10 % of the cheapest one's price{within}"


def _grid() -> Iterator[float]:
    """Numbers of requests, evenly on a logarithmic axis."""
    steps = round(math.log10(_MOST / _LEAST) * _STEPS_PER_DECADE)
    return (_LEAST * 10 ** (step / _STEPS_PER_DECADE) for step in range(steps + 1))


def _usd(case: Case, platform: str, requests: float) -> float:
    return PLATFORMS[platform].bill(replace(case, load=replace(case.load, requests=requests))).usd


def _cheapest(case: Case, names: list[str]) -> Iterator[BreakEven]:
    """Which platform is the cheapest from where to where."""

    def best(requests: float) -> str:
        return min(names, key=lambda name: _usd(case, name, requests))

    grid = list(_grid())
    holder = best(grid[0])
    for low, high in itertools.pairwise(grid):
        follower = best(high)
        if follower != holder:
            yield BreakEven(holder, _crossing(case, holder, follower, low, high))
            holder = follower
    yield BreakEven(holder, math.inf)


def _crossing(case: Case, before: str, after: str, low: float, high: float) -> float:
    """Where the second becomes cheaper than the first."""
    for _step in range(_BISECTIONS):
        middle = math.sqrt(low * high)
        if _usd(case, before, middle) <= _usd(case, after, middle):
            low = middle
        else:
            high = middle
    return high
