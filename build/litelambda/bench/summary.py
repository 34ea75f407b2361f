"""What many timings say in few numbers. Knows nothing of what was timed."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile: the smallest value that at least `percent` % of the values do not exceed.

    Args:
        values: At least one.
        percent: In (0, 100].
    """
    ordered = sorted(values)
    return ordered[max(math.ceil(len(ordered) * percent / 100), 1) - 1]


def spread(name: str, values: Sequence[float], digits: int = 2) -> dict[str, float]:
    """Median, smallest and largest value, under `name`, `name_min` and `name_max`."""
    return {
        name: round(statistics.median(values), digits),
        f"{name}_min": round(min(values), digits),
        f"{name}_max": round(max(values), digits),
    }


def ratio(numerator: float, denominator: float) -> float | None:
    """A quotient for a report, or None where the denominator is not a positive time and so no ratio holds."""
    return round(numerator / denominator, 3) if denominator > 0 else None
