"""Charts of the report, as matplotlib figures without a window, and as SVG in the colors of the page's theme."""

from __future__ import annotations

import html
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

_WIDTH, _HEIGHT = 4.8, 3.0  # inches: as wide as a phone, so that letters keep their size there
_WORTH_SEEING = 0.03  # of accuracy below the best: bad candidates would compress the scale of the good ones
_FEW = 0.01  # of the answers: the line of a calibration curve leaves out bins with fewer
_THEME = {"#000001": "var(--ink)", "#777778": "var(--muted)", "#1f5f98": "var(--accent)", "#b3402e": "var(--warm)"}
_INK, _MUTED, _ACCENT, _WARM = _THEME  # colors that nothing else draws with: they become the page's own
_IDS = re.compile(r' id="[A-Za-z0-9]+_[0-9]+"')  # the same in every chart; nothing refers to them


def svg(figure: Any, title: str, note: str = "") -> str:
    """A figure for a page, with a caption that is also its name for screen readers.

    Args:
        figure: of matplotlib.
        title: what it shows.
        note: more for the caption.
    """
    import matplotlib as mpl

    buffer = io.StringIO()
    unknown = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with mpl.rc_context(
        {"svg.hashsalt": "litelambda", "svg.fonttype": "none"}
    ):  # the same page each time, with letters
        figure.savefig(buffer, format="svg", metadata=unknown, transparent=True)
    drawn = buffer.getvalue()
    drawn = _IDS.sub("", drawn[drawn.index("<svg") :])
    for color, variable in _THEME.items():
        drawn = drawn.replace(color, variable)
    name = html.escape(title)
    drawn = drawn.replace("<svg", f'<svg role="img" aria-label="{name}"', 1)
    return f"<figure>{drawn}<figcaption>{name}{html.escape(note and f' ({note})')}</figcaption></figure>"


def curves(history: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    """Training against validation, by epoch: a figure for loss, one for accuracy."""
    figures = {}
    for name in ("loss", "accuracy"):
        if name not in history:
            continue
        figures[name], axis = _axes()
        for key, label, color in ((name, "training", _ACCENT), (f"val_{name}", "validation", _WARM)):
            if key in history:
                axis.plot(range(1, len(history[key]) + 1), history[key], label=label, marker=".", color=color)
        axis.set(xlabel="epoch", ylabel=name)
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.legend(frameon=False, labelcolor=_INK)
    return figures


def calibration_curve(found: Mapping[str, Mapping[str, Any]]) -> Any:
    """How often answers are right, by their confidence; a point is the larger the more answers it stands for."""
    figure, axis = _axes()
    axis.plot((0, 1), (0, 1), color=_MUTED, linestyle="--", linewidth=1)
    for (name, each), color, marker in zip(found.items(), (_WARM, _ACCENT), ("s", "o"), strict=False):
        said, right = ([point[key] for point in each["bins"]] for key in ("confidence", "right"))
        total = sum(point["count"] for point in each["bins"])
        usual = [point for point in each["bins"] if point["count"] >= _FEW * total]
        sizes = [10 + 90 * math.sqrt(point["count"] / total) for point in each["bins"]]
        axis.plot(*([point[key] for point in usual] for key in ("confidence", "right")), color=color, linewidth=1)
        axis.scatter(said, right, sizes, color=color, marker=marker, label=name, alpha=0.8)
    axis.set(xlabel="confidence", ylabel="share that is right", xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
    axis.legend(frameon=False, labelcolor=_INK)
    return figure


def deletion_and_insertion(shares: Sequence[float], found: Mapping[str, Any], random: Mapping[str, Any]) -> Any:
    """The answer while the most important values go, and while they come; dashed, in a random order."""
    figure, axis = _axes()
    for name, color in (("deletion", _WARM), ("insertion", _ACCENT)):
        axis.plot(shares, found[name], color=color, label=name)
        axis.plot(shares, random[name], color=color, linestyle="--", linewidth=1)
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.set(xlabel="share of the values", ylabel="explained output")
    axis.legend(frameon=False, labelcolor=_INK)
    return figure


def residuals(points: Sequence[Sequence[float]]) -> Any:
    """Answer minus target, by target."""
    figure, axis = _axes()
    targets = [target for target, _ in points]
    axis.axhline(0, color=_MUTED, linestyle="--", linewidth=1)
    axis.scatter(targets, [answer - target for target, answer in points], 9, color=_ACCENT, alpha=0.6)
    axis.set(xlabel="target", ylabel="answer - target")
    return figure


def shares(bins: Sequence[str], values: Mapping[str, Sequence[float]]) -> Any:
    """Bars of the share of rows in each bin, of a baseline and of what is compared with it."""
    figure, axis = _axes()
    places = range(len(bins))
    for shift, (name, color) in enumerate(zip(values, (_MUTED, _ACCENT), strict=True)):
        axis.bar([place + 0.4 * (shift - 0.5) for place in places], values[name], 0.4, label=name, color=color)
    axis.set_xticks(places, bins, rotation=90 if len(bins) > 3 else 0)
    axis.yaxis.set_major_formatter("{x:.0%}")
    axis.set(ylabel="share of rows")
    axis.legend(frameon=False, labelcolor=_INK)
    return figure


def pareto(auto: Mapping[str, Any]) -> Any:
    """Every candidate: stored bytes against accuracy; a triangle marks one that is below the chart."""
    figure, axis = _axes()
    ran = [each for each in auto["tried"] if not each["problem"]]
    floor = max(each["accuracy"] for each in ran) - _WORTH_SEEING
    for label, names, color in (
        ("beaten", {each["name"] for each in ran} - set(auto["pareto"]), _MUTED),
        ("Pareto set", set(auto["pareto"]) - {auto["chosen"]}, _ACCENT),
        ("chosen", {auto["chosen"]}, _WARM),
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
    figure.legend(loc="outside upper center", ncols=3, frameon=False, labelcolor=_INK)
    return figure


def _round_sizes(least: float, most: float) -> list[float]:
    """Ticks at 1, 2 and 5 times powers of ten, from just below to just above what is shown."""
    powers = range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1)
    sizes = [factor * 10.0**power for power in powers for factor in (1, 2, 5)]
    below = max((size for size in sizes if size <= least), default=sizes[0])
    above = min((size for size in sizes if size >= most), default=sizes[-1])
    return [size for size in sizes if below <= size <= above]


def _axes() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    axis = figure.add_subplot()
    axis.tick_params(color=_MUTED, labelcolor=_INK)
    axis.xaxis.label.set_color(_INK)
    axis.yaxis.label.set_color(_INK)
    for name, spine in axis.spines.items():
        spine.set_color(_MUTED)
        spine.set_visible(name in ("left", "bottom"))
    return figure, axis
