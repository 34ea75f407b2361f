"""Charts of the report, as matplotlib figures without a window."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 7.0, 3.0
_WORTH_SEEING = 0.03  # of accuracy below the best: bad candidates would compress the scale of the good ones
_MOST_LABELS = 20  # that fit on an axis


def curves(history: Mapping[str, Sequence[float]]) -> Any:
    """Training against validation, loss and accuracy, by epoch."""
    pairs = [name for name in ("loss", "accuracy") if name in history]
    figure, axes = _axes(len(pairs))
    for axis, name in zip(axes, pairs, strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in history:
                axis.plot(range(1, len(history[key]) + 1), history[key], label=label, marker=".")
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.legend()
    return figure


def bars(values: Mapping[str, float], unit: str) -> Any:
    """Bars of sizes, each with its number."""
    figure, (axis,) = _axes(1)
    drawn = axis.bar(list(values), list(values.values()), color="#4878a8")
    axis.bar_label(drawn, labels=[f"{value:,.0f}" for value in values.values()])
    axis.set(ylabel=unit)
    axis.yaxis.set_major_formatter("{x:,.0f}")
    axis.margins(y=0.15)
    return figure


def intervals(values: Mapping[str, tuple[float, float, float]]) -> Any:
    """Accuracy of each stage with its confidence interval."""
    figure, (axis,) = _axes(1)
    names = list(values)
    middle = [values[name][0] for name in names]
    spread = [
        [values[name][0] - values[name][1] for name in names],
        [values[name][2] - values[name][0] for name in names],
    ]
    axis.errorbar(names, middle, yerr=spread, fmt="o", capsize=6, color="#4878a8")
    axis.set(ylabel="accuracy")
    axis.margins(x=0.2)
    return figure


def pareto(auto: Mapping[str, Any]) -> Any:
    """Every candidate: stored bytes against accuracy; a triangle marks one that is below the chart."""
    figure, (axis,) = _axes(1)
    ran = [each for each in auto["tried"] if not each["problem"]]
    floor = max(each["accuracy"] for each in ran) - _WORTH_SEEING
    for label, names, color in (
        ("beaten", {each["name"] for each in ran} - set(auto["pareto"]), "#bbbbbb"),
        ("Pareto set", set(auto["pareto"]) - {auto["chosen"]}, "#4878a8"),
        ("chosen", {auto["chosen"]}, "#c04040"),
    ):
        here = [(each["stored"], each["accuracy"]) for each in ran if each["name"] in names]
        shown = [(stored, accuracy) for stored, accuracy in here if accuracy >= floor]
        below = [(stored, floor) for stored, accuracy in here if accuracy < floor]
        for points, marker, name in ((shown, "o", label), (below, "v", None)):
            axis.scatter(*zip(*points, strict=True) if points else ((), ()), label=name, color=color, marker=marker)
    axis.set(xlabel="bytes stored", ylabel="accuracy on validation rows", xscale="log")
    stored = [each["stored"] for each in ran]
    axis.set_xticks(_round_sizes(min(stored), max(stored)), minor=False)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.xaxis.set_minor_formatter("")
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return figure


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> Any:
    """True classes in rows, predicted ones in columns."""
    figure, (axis,) = _axes(1, height=4.5)
    image = axis.imshow(matrix, cmap="Blues", norm="symlog")
    axis.set(xlabel="predicted", ylabel="true")
    ticks = range(0, len(labels), math.ceil(len(labels) / _MOST_LABELS))
    named = [labels[tick] for tick in ticks]
    axis.set_xticks(ticks, named, rotation=90 if max(map(len, named)) > 3 else 0)
    axis.set_yticks(ticks, named)
    if len(labels) <= _MOST_LABELS:
        for row, column in itertools.product(ticks, ticks):
            if matrix[row][column]:
                color = "white" if image.norm(matrix[row][column]) > 0.6 else "black"
                number = str(matrix[row][column])
                axis.text(column, row, number, ha="center", va="center", fontsize=7, color=color)
    return figure


def _round_sizes(least: float, most: float) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten, from just below to just above what is shown."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    sizes = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    below = max((size for size in sizes if size <= least), default=sizes[0])
    above = min((size for size in sizes if size >= most), default=sizes[-1])
    return [size for size in sizes if below <= size <= above]


def _axes(count: int, height: float = _HEIGHT) -> tuple[Any, list[Any]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "litelambda"  # the same page from the same figures
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, [figure.add_subplot(1, count, at + 1) for at in range(count)]
