"""Charts of the report, as matplotlib figures without a window."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 7.0, 3.0


def curves(history: Mapping[str, Sequence[float]]) -> Any:
    """Training against validation, loss and accuracy, by epoch."""
    pairs = [name for name in ("loss", "accuracy") if name in history]
    figure, axes = _axes(len(pairs))
    for axis, name in zip(axes, pairs, strict=True):
        for key, label in ((name, "training"), (f"val_{name}", "validation")):
            if key in history:
                axis.plot(range(1, len(history[key]) + 1), history[key], label=label, marker=".")
        axis.set(xlabel="epoch", ylabel=name)
        axis.legend()
    return figure


def bars(values: Mapping[str, float], unit: str) -> Any:
    """A waterfall of sizes."""
    figure, (axis,) = _axes(1)
    drawn = axis.bar(list(values), list(values.values()), color="#4878a8")
    axis.bar_label(drawn, labels=[f"{value:,.0f}" for value in values.values()])
    axis.set(ylabel=unit)
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
    """Every candidate that was tried: stored bytes against accuracy."""
    figure, (axis,) = _axes(1)
    ran = [each for each in auto["tried"] if not each["problem"]]
    for label, names, colour in (
        ("beaten", {each["name"] for each in ran} - set(auto["pareto"]), "#bbbbbb"),
        ("Pareto set", set(auto["pareto"]) - {auto["chosen"]}, "#4878a8"),
        ("chosen", {auto["chosen"]}, "#c04040"),
    ):
        chosen = [each for each in ran if each["name"] in names]
        axis.scatter([e["stored"] for e in chosen], [e["accuracy"] for e in chosen], label=label, color=colour)
    axis.set(xlabel="bytes stored", ylabel="accuracy on validation rows", xscale="log")
    axis.legend()
    return figure


def confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> Any:
    """True classes in rows, predicted ones in columns."""
    figure, (axis,) = _axes(1, height=4.5)
    axis.imshow(matrix, cmap="Blues", norm="symlog")
    axis.set(xlabel="predicted", ylabel="true")
    ticks = range(len(labels))
    axis.set_xticks(ticks, labels, rotation=90)
    axis.set_yticks(ticks, labels)
    if len(labels) <= 20:
        for row in ticks:
            for column in ticks:
                if matrix[row][column]:
                    axis.text(column, row, str(matrix[row][column]), ha="center", va="center", fontsize=7)
    return figure


def _axes(count: int, height: float = _HEIGHT) -> tuple[Any, list[Any]]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "litelambda"  # the same page from the same figures
    figure = Figure(figsize=(_WIDTH, height), layout="constrained")
    return figure, [figure.add_subplot(1, count, at + 1) for at in range(count)]
