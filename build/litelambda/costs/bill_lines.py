"""The lines of a bill, and what the bills of several platforms have in common.

It does not know platforms: they are side by side in `bills`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from litelambda.costs.case import FULL_CORE_MB, Case
from litelambda.costs.load import DAYS_PER_MONTH, HOURS_PER_MONTH
from litelambda.costs.prices import Price, Prices

GB = 2**30
SECONDS_PER_MONTH = HOURS_PER_MONTH * 3600
UTILIZATION = 0.6
"""How busy the vCPUs of a service are in its busiest hour, before it gets another instance."""

_PLATFORM_LOG_BYTES = 400  # what Lambda writes of each request besides: START, END and REPORT
_ACCESS_LOG_BYTES = 400  # what the HTTP API writes of each request, in the form that the template has
_METERED_BYTES = 512 * 1024  # an HTTP API counts a request once for each such part of its payload
_LCU_CONNECTIONS_PER_S = 25
_T4G_SMALL_BASELINE, _DISK_GB = 0.4, 8


@dataclass(frozen=True)
class Line:
    """One line of a bill.

    Attributes:
        what: what is paid for.
        quantity: how much of it in a month, in the price's unit.
        price: what it is billed by.
        usd: what that comes to.
    """

    what: str
    quantity: float
    price: Price
    usd: float


@dataclass(frozen=True)
class Bill:
    """What a platform costs in a month.

    Attributes:
        lines: what is paid for.
        notes: what the bill assumes that is true of this platform alone.
    """

    lines: tuple[Line, ...]
    notes: tuple[str, ...] = ()

    @property
    def usd(self) -> float:
        """The sum of its lines."""
        return sum(line.usd for line in self.lines)


def lambda_lines(
    prices: Prices, *, requests: float, gb_seconds: float, architecture: str = "arm64", free_tier: bool = False
) -> list[Line]:
    """What Lambda itself bills for invocations, as CloudWatch or a log counts them.

    Args:
        prices: the table of the region.
        requests: invocations of the month.
        gb_seconds: their billed duration, times the memory in GB.
        architecture: `arm64` or `x86_64`.
        free_tier: whether what is free each month counts.

    Returns:
        Two lines.

    Raises:
        MissingPriceError: the table has no price for the region.

    Example:
        >>> from litelambda.costs.prices import load_prices
        >>> lines = lambda_lines(load_prices(), requests=3_000_000, gb_seconds=100_000)
        >>> round(sum(line.usd for line in lines), 4)
        1.9333
    """
    bought = (("requests", "lambda.requests", requests), ("duration", f"lambda.{architecture}", gb_seconds))
    return [_line(prices, what, key, quantity, free_tier=free_tier) for what, key, quantity in bought]


def _line(prices: Prices, what: str, key: str, quantity: float, *, free_tier: bool) -> Line:
    price = prices[key]
    return Line(what, quantity, price, price.cost(quantity, free_tier=free_tier))


class Lines(list[Line]):
    """The lines of a bill, as they are added."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        self._case = case

    def add(self, what: str, key: str, quantity: float, *, free_tier: bool = True) -> None:
        """Add what so much of a price's unit costs; `free_tier` is whether its free amount may count."""
        self.append(_line(self._case.prices, what, key, quantity, free_tier=free_tier and self._case.free_tier))


def function_lines(case: Case) -> list[Line]:
    """Lambda itself, for requests and batch rows."""
    return [
        *lambda_lines(
            case.prices,
            requests=case.load.requests,
            gb_seconds=case.gb_seconds,
            architecture=case.architecture,
            free_tier=case.free_tier,
        ),
        *batch_on_lambda(case),
    ]


def batch_on_lambda(case: Case) -> Lines:
    """Batch rows, by functions of one whole vCPU."""
    lines = Lines(case)
    if case.load.batch_rows:
        lines.add("batch rows", f"lambda.{case.architecture}", case.batch_vcpu_s * FULL_CORE_MB / 1024, free_tier=False)
    return lines


def behind_http_api(case: Case, *, starts: bool = True) -> Lines:
    """The HTTP API in front of a function, and what AWS bills around both; see `around_function`."""
    parts = max(math.ceil(max(case.load.request_bytes, case.load.response_bytes) / _METERED_BYTES), 1)
    lines = Lines(case)
    lines.add("HTTP API", "api.http", case.load.requests * parts)
    lines += around_function(case, starts=starts, access_log_bytes=_ACCESS_LOG_BYTES)
    return lines


def around_function(case: Case, *, starts: bool = True, access_log_bytes: int = 0) -> Lines:
    """What AWS bills around a function: that it starts from the store, and its log lines too, are counted."""
    lines = around_aws(case, _PLATFORM_LOG_BYTES + access_log_bytes)
    lines.add("store, requests", "s3.get", case.store_gets if starts else 0)
    return lines


def around_aws(case: Case, extra_log_bytes: int = 0) -> Lines:
    """What every platform of AWS bills besides itself: the store, logs and metrics, and what leaves the cloud."""
    log_gb = case.load.requests * (case.log_bytes + extra_log_bytes) / GB
    hours = sum(busy_share(rate, 3600.0) for rate in case.load.rates) / 24
    lines = Lines(case)
    lines.add("data out", "transfer.out", case.load.requests * case.load.response_bytes / GB)
    lines.add("logs", "logs.ingested", log_gb)
    lines.add("logs kept a month", "logs.stored", log_gb)
    lines.add("metrics", "logs.metrics", case.metrics * hours)
    lines.add("store", "s3.storage", case.profile.artifact_bytes / GB)
    return lines


def load_balancer(case: Case, addresses: int) -> Lines:
    """A load balancer in two zones, with a new connection for each request; and public addresses."""
    sent = case.load.request_bytes + case.load.response_bytes
    units = sum(max(rate / _LCU_CONNECTIONS_PER_S, rate * 3600 * sent / GB) for rate in case.load.rates)
    lines = Lines(case)
    lines.add("load balancer", "alb.hours", HOURS_PER_MONTH)
    lines.add("load balancer's units", "alb.lcu", units * DAYS_PER_MONTH)
    lines.add("public addresses", "ipv4.hours", addresses * HOURS_PER_MONTH)
    return lines


def machine_lines(case: Case, count: int) -> Lines:
    """So many small machines, with a disk and an address each."""
    baseline = _T4G_SMALL_BASELINE * count
    busy_vcpus = (case.load.requests * case.warm_ms / 1000 + case.batch_vcpu_s) / SECONDS_PER_MONTH
    lines = Lines(case)
    lines.add("machines", "ec2.t4g-small", count * HOURS_PER_MONTH)
    lines.add("vCPUs beyond the baseline", "ec2.t4g-credits", max(busy_vcpus - baseline, 0.0) * HOURS_PER_MONTH)
    lines.add("disks", "ec2.gp3", count * _DISK_GB)
    lines.add("their addresses", "ipv4.hours", count * HOURS_PER_MONTH)
    return lines


def busy_share(rate: float, each_s: float) -> float:
    """The share of an hour with a request in it, where each keeps something busy for so long."""
    return 1 - math.exp(-rate * each_s)
