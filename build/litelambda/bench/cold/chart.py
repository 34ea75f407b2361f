"""The chart of `litelambda bench cold`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from litelambda.bench.charts import (
    FLOOR_COLOR,
    OUR_COLOR,
    THEIR_COLOR,
    add_title,
    figure,
    label_rows,
    name_machine,
)
from litelambda.bench.contenders import FLOOR

_CROP = 2.5  # a bar this many times longer than the next is cut off, and says so


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw INIT and the first answer of every handler as stacked bars, with hello world as a line across."""
    handlers = result["handlers"]
    init = [numbers["init_ms"] for numbers in handlers.values()]
    limit = _limit(init)
    with figure(path, len(handlers)) as axes:
        colors = [
            FLOOR_COLOR if name == FLOOR else OUR_COLOR if name.startswith("litelambda") else THEIR_COLOR
            for name in handlers
        ]
        places = range(len(handlers))
        shown = [min(value, limit) for value in init]
        axes.barh(places, shown, color=colors, height=0.62)
        first = [min(numbers["first_ms"], limit - bar) for numbers, bar in zip(handlers.values(), shown, strict=True)]
        axes.barh(places, first, left=shown, color=colors, height=0.62, alpha=0.45)
        for place, value, end in zip(places, init, (a + b for a, b in zip(shown, first, strict=True)), strict=True):
            axes.annotate(
                f"{value:,.0f} ms" + (" →" if value > limit else ""), (end, place), (4, 0),
                textcoords="offset points", va="center",
            )  # fmt: skip
        if FLOOR in handlers:
            axes.axvline(handlers[FLOOR]["init_ms"], color=FLOOR_COLOR, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        label_rows(axes, [numbers["title"] for numbers in handlers.values()])
        axes.set_xlim(0, limit * 1.16)
        axes.set_xlabel("from process start to ready (and, paler, to the first answer), ms")
        add_title(axes, f"Cold start with {result['model']['name']}", _conditions(result))


def _limit(values: Sequence[float]) -> float:
    """Where the axis ends: at the longest bar, or at the second where the longest would flatten all others."""
    longest, *rest = sorted(values, reverse=True)
    second = rest[0] if rest else longest
    return math.ceil(second * 1.1) if longest > _CROP * second else longest


def _conditions(result: dict[str, Any]) -> str:
    latency = result["store"]["latency_ms"]
    store = f"S3 on loopback, {latency:g} ms to the first byte" if latency else "S3 on loopback"
    return f"medians of {result['runs']} starts in turn · {store} · {name_machine(result)}"
