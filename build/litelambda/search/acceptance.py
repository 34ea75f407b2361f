"""Acceptance: what a candidate measured, whether it is good enough, and which candidates no other beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist

from litelambda.recipe.compression import Auto

_CLEARLY = 0.95
"""Where latency counts, the earlier candidate stays unless the gain is as clear as this; one measurement is good to
2 %, see `conversion.int4`."""
_NEARLY = 1.75  # times the allowed drop, margin included: chosen, not measured; more training may be enough up to here
_LEAST_DROP = 0.001  # of accuracy: the unit of an excess where no drop at all is allowed


@dataclass(frozen=True)
class TrialResult:
    """What a candidate measured.

    Attributes:
        name: the candidate's.
        scheme: how it was quantized.
        accuracy: on the validation rows, in int8 where that is its scheme.
        stored: bytes, compressed.
        raw: bytes of the flatbuffer.
        latency: microseconds per row in the shipped runtime.
        lost: validation rows that the float model gets right and this one does not.
        gained: validation rows that only this one gets right.
        cost: what is minimized, 1 for the float model.
        passes: whether its accuracy is good enough.
        problem: why it could not be measured; "" where it was.
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


class Acceptance:
    """Computes what a candidate costs, and whether it is good enough.

    Validation rows are a sample, and so are the test rows at the gate. A candidate passes where its drop in accuracy
    stays within `max_accuracy_drop` on the test rows too, with the recipe's confidence. Both models see the same rows,
    so only the rows count that one of them gets right and the other does not.

    Args:
        auto: the recipe's `compress.auto`.
        num_rows: of validation.
        num_test_rows: at the gate.

    Source: McNemar 1947, "Note on the sampling error of the difference between correlated proportions".
    """

    def __init__(self, auto: Auto, num_rows: int, num_test_rows: int) -> None:
        shares = auto.minimize if isinstance(auto.minimize, Mapping) else {auto.minimize: 1.0}
        self._shares = {name: share / (sum(shares.values()) or 1.0) for name, share in shares.items() if share}
        self._max_drop, self._num_rows = auto.max_accuracy_drop, num_rows
        self._z = NormalDist().inv_cdf(auto.confidence) * math.sqrt(1 + num_rows / num_test_rows)

    def counts(self, figure: str) -> bool:
        """Whether "stored", "raw" or "latency" is to be minimized."""
        return figure in self._shares

    def drop(self, result: TrialResult) -> float:
        """The loss of accuracy against the float model on the validation rows."""
        return (result.lost - result.gained) / self._num_rows

    def margin(self, result: TrialResult) -> float:
        """How much larger the drop may be on the test rows, with the recipe's confidence."""
        changed, difference = result.lost + result.gained, result.lost - result.gained
        return self._z * math.sqrt(max(0.0, changed - difference**2 / self._num_rows)) / self._num_rows

    def passes(self, result: TrialResult) -> bool:
        """Whether a candidate's accuracy is good enough."""
        return not result.problem and self.drop(result) + self.margin(result) <= self._max_drop

    def nearly_passes(self, result: TrialResult) -> bool:
        """Whether more training may make a candidate's accuracy good enough."""
        return not result.problem and self.drop(result) + self.margin(result) <= _NEARLY * self._max_drop

    def cost(self, result: TrialResult, in_float: TrialResult) -> float:
        """What is minimized, relative to the float model."""
        if result.problem:
            return math.inf
        return math.fsum(
            share * getattr(result, name) / getattr(in_float, name) for name, share in self._shares.items()
        )

    def promise(self, result: TrialResult) -> float:
        """The cost after short training, raised by the excess drop in accuracy; smaller is better.

        More training recovers most of the excess, so only its square root counts.
        """
        excess = max(0.0, self.drop(result) - self._max_drop) / max(self._max_drop, _LEAST_DROP)
        return result.cost * math.sqrt(1 + excess)

    def is_better(self, result: TrialResult, than: TrialResult) -> bool:
        """Whether one result replaces another: only it passes, or both do and it costs less.

        Of two that do not pass, and of two of the same size, the more accurate one is better. Where latency counts,
        only a clear difference matters.
        """
        if result.passes != than.passes:
            return result.passes
        same_size = result.raw == than.raw and (result.stored == than.stored or not self.counts("stored"))
        if not result.passes or same_size:
            return result.accuracy > than.accuracy
        return result.cost < than.cost * (_CLEARLY if self.counts("latency") else 1)

    def pareto(self, results: Sequence[TrialResult]) -> list[TrialResult]:
        """The results that no other beats: as good in accuracy and in both sizes, and better in one of them.

        Latency is compared only where it counts, since it does not repeat exactly.
        """
        names = ["stored", "raw", *(["latency"] if self.counts("latency") else [])]

        def figures(each: TrialResult) -> tuple[float, ...]:
            return (-each.accuracy, *(getattr(each, name) for name in names))

        def beaten(each: TrialResult, by: TrialResult) -> bool:
            pairs = list(zip(figures(by), figures(each), strict=True))
            return all(a <= b for a, b in pairs) and any(a < b for a, b in pairs)

        measured = [each for each in results if not each.problem]
        return [each for each in measured if not any(beaten(each, other) for other in measured)]
