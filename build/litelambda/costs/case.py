"""What a bill is made for: one artifact, one load and one way to run it; and the quantities that follow from them."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import cached_property

from litelambda.common.errors import UsageError
from litelambda.costs.load import Load
from litelambda.costs.measured import Profile, Spread
from litelambda.costs.prices import Prices

__all__ = ["ARCHITECTURES", "FULL_CORE_MB", "Case", "vcpu_share"]

ARCHITECTURES = ("arm64", "x86_64")
FULL_CORE_MB = 1769
"""From here on a function has a whole vCPU, and one thread no more to gain."""

_STARTUP_GETS = 3  # aliases.json, the manifest, the artifact
_SHORT_IDLE_S, _LONG_IDLE_S = 300.0, 900.0  # the range in which observers saw idle environments end


def vcpu_share(memory_mb: float) -> float:
    """The part of one vCPU that a function of this size has for one thread.

    Example:
        >>> round(vcpu_share(512), 3), vcpu_share(3008)
        (0.289, 1.0)
    """
    return min(memory_mb / FULL_CORE_MB, 1.0)


@dataclass(frozen=True)
class Case:
    """One artifact under one load, and how it runs.

    Attributes:
        load: the requests.
        profile: what was measured.
        prices: the price table.
        memory_mb: of the function.
        architecture: `arm64` or `x86_64`.
        free_tier: whether what is free each month counts.
        cpu_factor: how many times as long the platform's vCPU takes as the core that measured.
        log_bytes: what the function writes to the log of a request.
        metrics: of CloudWatch, in every hour with requests; the function has one, where a request fails by its fault.
        bound: -1 for the least that the bill may be, 1 for the most, 0 for what to expect.
    """

    load: Load
    profile: Profile
    prices: Prices
    memory_mb: int = 512
    architecture: str = "arm64"
    free_tier: bool = False
    cpu_factor: float = 1.0
    log_bytes: int = 300
    metrics: int = 1
    bound: int = 0

    def __post_init__(self) -> None:
        """Refuse what cannot be.

        Raises:
            UsageError: a batch without its measurement, or a number that is out of range.
        """
        if self.load.batch_rows and not self.profile.rows_per_s:
            raise UsageError("--batch-rows needs rows per second: add --bench FILE of `litelambda bench batch --json`")
        if not 0 < self.cpu_factor < math.inf:
            raise UsageError(f"--cpu-factor {self.cpu_factor:g}: use a number greater than 0")
        if not 128 <= self.memory_mb <= 10240:
            raise UsageError(f"--memory {self.memory_mb}: use 128 to 10240 MB")
        if self.log_bytes < 0 or self.metrics < 0:
            raise UsageError("--log-bytes and --metrics: use numbers of 0 or more")

    def bounded(self, bound: int) -> Case:
        """The same case at its cheapest (-1) or dearest (1)."""
        return replace(self, bound=bound)

    def _time_ms(self, spread: Spread) -> float:
        return (spread.worst_ms if self.bound > 0 else spread.ms) * self.cpu_factor

    @property
    def warm_ms(self) -> float:
        """A request on a whole vCPU."""
        return self._time_ms(self.profile.warm)

    @property
    def stock_ms(self) -> float:
        """The same on the stock runtime client."""
        return self._time_ms(self.profile.stock)

    @property
    def init_ms(self) -> float:
        """INIT, which has a whole vCPU whatever the function's size."""
        return self._time_ms(self.profile.init)

    @property
    def first_ms(self) -> float:
        """The first request of an environment, on a whole vCPU."""
        return self._time_ms(self.profile.first)

    @cached_property
    def cold_starts(self) -> float:
        """How many requests of the month start an environment of the function."""
        kept_s = {-1: _LONG_IDLE_S, 0: None, 1: _SHORT_IDLE_S}[self.bound]
        return self.load.cold_starts(self.warm_ms / vcpu_share(self.memory_mb) / 1000, kept_s)

    @property
    def gb_seconds(self) -> float:
        """What Lambda bills for the requests of the month, INIT included: each rounded up to a millisecond."""
        share = vcpu_share(self.memory_mb)
        warm = math.ceil(self.warm_ms / share)
        cold = math.ceil(self.init_ms + self.first_ms / share)
        ms = (self.load.requests - self.cold_starts) * warm + self.cold_starts * cold
        return ms / 1000 * self.memory_mb / 1024

    @property
    def batch_vcpu_s(self) -> float:
        """Seconds of one vCPU for the batch rows."""
        return self.load.batch_rows / (self.profile.rows_per_s or math.inf) * self.cpu_factor

    @property
    def peak_vcpus(self) -> float:
        """How many vCPUs the requests of the busiest hour keep busy."""
        return self.load.peak_rate * self.warm_ms / 1000

    @property
    def store_gets(self) -> float:
        """Objects that cold starts read from the store."""
        return self.cold_starts * _STARTUP_GETS
