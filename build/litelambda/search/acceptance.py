"""Trials: what came of the candidates of a search, which of them are good enough, and which no other beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from litelambda.recipe.compression import Auto

_CLEARLY = 0.95  # times are noisy: where they count, only a cost below this share of another's is a lower one
_NEARLY = 1.75  # times the drop that is allowed, margin included: what more training may mend
_LEAST_DROP = 0.001  # of accuracy, to measure an excess with where no drop at all is allowed


@dataclass(frozen=True)
class Tried:
    """What came of a candidate.

    Attributes:
        name: the candidate's.
        scheme: how it was quantized.
        accuracy: on the validation rows, in int8 where that is its scheme.
        stored: bytes, compressed.
        raw: bytes of the flatbuffer.
        latency: microseconds for a row in the shipped runtime.
        lost: validation rows that the float model gets right and this one does not.
        gained: the other way round.
        cost: what is minimised, 1 for the float model.
        passes: whether its accuracy is good enough.
        problem: why there is nothing else; "" where there is.
    """

    name: str
    scheme: str
    accuracy: float = 0.0
    stored: int = 0
    raw: int = 0
    latency: float = 0.0
    lost: int = 0
    gained: int = 0
    cost: float = float("inf")
    passes: bool = False
    problem: str = ""


class Judge:
    """Says what a candidate costs, and whether it is good enough.

    Validation rows are a sample, and so are the test rows at the gate. A candidate passes where its drop in accuracy
    stays within `max_accuracy_drop` on the test rows too, with the recipe's confidence. Both models see the same rows,
    so that only those count that one of them gets right and the other does not.

    Args:
        auto: the recipe's `compress.auto`.
        num_rows: of validation.
        num_test_rows: at the gate.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """

    def __init__(self, auto: Auto, num_rows: int, num_test_rows: int) -> None:
        shares = auto.minimise if isinstance(auto.minimise, Mapping) else {auto.minimise: 1.0}
        self._shares = {name: share / (sum(shares.values()) or 1.0) for name, share in shares.items() if share}
        self._max_drop, self._num_rows = auto.max_accuracy_drop, num_rows
        self._z = NormalDist().inv_cdf(auto.confidence) * math.sqrt(1 + num_rows / num_test_rows)

    def counts(self, figure: str) -> bool:
        """Whether "stored", "raw" or "latency" is to be minimised."""
        return figure in self._shares

    def drop(self, tried: Tried) -> float:
        """Accuracy that is lost against the float model on the validation rows."""
        return (tried.lost - tried.gained) / self._num_rows

    def margin(self, tried: Tried) -> float:
        """How much more it may be on the test rows, with the recipe's confidence."""
        changed, difference = tried.lost + tried.gained, tried.lost - tried.gained
        return self._z * math.sqrt(max(0.0, changed - difference**2 / self._num_rows)) / self._num_rows

    def passes(self, tried: Tried) -> bool:
        """Whether a candidate's accuracy is good enough."""
        return not tried.problem and self.drop(tried) + self.margin(tried) <= self._max_drop

    def nearly_passes(self, tried: Tried) -> bool:
        """Whether a candidate's accuracy lacks so little that more training may make it good enough."""
        return not tried.problem and self.drop(tried) + self.margin(tried) <= _NEARLY * self._max_drop

    def cost(self, tried: Tried, floating: Tried) -> float:
        """What is minimised, relative to the float model."""
        if tried.problem:
            return math.inf
        return math.fsum(share * getattr(tried, name) / getattr(floating, name) for name, share in self._shares.items())

    def promise(self, tried: Tried) -> float:
        """The cost of what was only trained shortly, with what it lacks in accuracy; smaller is better.

        Most of that comes back with more training, so that only its square root counts.
        """
        excess = max(0.0, self.drop(tried) - self._max_drop) / max(self._max_drop, _LEAST_DROP)
        return tried.cost * math.sqrt(1 + excess)

    def is_better(self, tried: Tried, than: Tried) -> bool:
        """Whether one takes another's place: it passes alone, or both do and it costs less.

        Of two that do not pass, and of two of the same size, the more accurate one. Where time counts, only a clear
        difference is one.
        """
        if tried.passes != than.passes:
            return tried.passes
        same_size = tried.raw == than.raw and (tried.stored == than.stored or not self.counts("stored"))
        if not tried.passes or same_size:
            return tried.accuracy > than.accuracy
        return tried.cost < than.cost * (_CLEARLY if self.counts("latency") else 1)

    def pareto(self, tried: Sequence[Tried]) -> list[Tried]:
        """Those that no other beats: as accurate, as small stored and raw, and better in one.

        Time is a figure of its own only where it counts: it is the one that does not repeat.
        """
        names = ["stored", "raw", *(["latency"] if self.counts("latency") else [])]

        def figures(each: Tried) -> tuple[float, ...]:
            return (-each.accuracy, *(getattr(each, name) for name in names))

        def beaten(each: Tried, by: Tried) -> bool:
            pairs = list(zip(figures(by), figures(each), strict=True))
            return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

        ran = [each for each in tried if not each.problem]
        return [each for each in ran if not any(beaten(each, other) for other in ran)]
