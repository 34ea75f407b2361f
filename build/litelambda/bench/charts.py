"""The charts of the benchmarks, for a README: SVG or PNG by the file's name."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.bench.contenders import FLOOR, OURS_LEAN, USUAL
from litelambda.common.errors import UsageError
from litelambda.costs.bills import PLATFORMS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from litelambda.costs.estimate import Estimate

_KINDS = (".svg", ".png")
_CROP = 2.5  # a bar this many times longer than the next is cut off, and says so
_OURS, _THEIRS, _FLOOR, _INK, _FAINT = "#0b7285", "#adb5bd", "#495057", "#212529", "#dee2e6"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": _FLOOR,
    "ytick.color": _INK,
    "svg.hashsalt": "litelambda",  # the same result, the same file
}
_COST_ROWS = 9  # as high as a chart of so many bars
_COST_SHADES: tuple[dict[str, Any], ...] = (
    *({"color": _OURS, "linestyle": style} for style in ("-", "--", ":", "-.", (0, (1, 3)))),
    *(
        {"color": color}
        for color in ("#5f3dc4", "#9c36b5", "#e8590c", "#f08c00", "#868e96", _INK, "#1971c2", "#2f9e44")
    ),
)
_ROW_INCHES, _FRAME_INCHES, _WIDTH_INCHES = 0.38, 1.25, 8.0
_PANEL_INCHES = 3.6
_HIGHLIGHT = "#e8590c"
_PANELS: dict[str, tuple[str, str, tuple[tuple[str, str, str], ...]]] = {
    "models": (
        "models",
        "models in the store",
        (
            ("init_ms", "INIT", _OURS),
            ("index_ms", "V2's index", _HIGHLIGHT),
            ("openapi_ms", "/openapi.json", _FLOOR),
        ),
    ),
    "rows": (
        "rows",
        "rows of a request",
        ((f"{OURS_LEAN}_ms", "litelambda", _OURS), (f"{USUAL}_ms", "the usual handler", _THEIRS)),
    ),
    "size": (
        "size_mb",
        "MB of the model, against INIT",
        ((f"{OURS_LEAN}_init_ms", "litelambda", _OURS), (f"{USUAL}_init_ms", "the usual handler", _THEIRS)),
    ),
}
"""By curve: what grows, its label, and a line for each column."""


def check_chart_path(path: Path | None) -> None:
    """Refuse a chart that could not be written, before anything is measured.

    Raises:
        UsageError: another kind of file, or a folder that does not exist.
    """
    if path is not None and (path.suffix not in _KINDS or not path.parent.is_dir()):
        raise UsageError(f"--chart {path}: expected a .svg or .png file in a folder that exists")


def draw_cold(result: dict[str, Any], path: Path) -> None:
    """Draw INIT and the first answer of every handler as stacked bars, with hello world as a line across."""
    handlers = result["handlers"]
    init = [numbers["init_ms"] for numbers in handlers.values()]
    limit = _limit(init)
    with _figure(path, len(handlers)) as axes:
        colors = [_FLOOR if name == FLOOR else _OURS if name.startswith("litelambda") else _THEIRS for name in handlers]
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
            axes.axvline(handlers[FLOOR]["init_ms"], color=_FLOOR, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        _label_rows(axes, [numbers["title"] for numbers in handlers.values()])
        axes.set_xlim(0, limit * 1.16)
        axes.set_xlabel("from process start to ready (and, paler, to the first answer), ms")
        _add_title(axes, f"Cold start with {result['model']['name']}", _conditions(result))


def _limit(values: Sequence[float]) -> float:
    """Where the axis ends: at the longest bar, or at the second where the longest would flatten all others."""
    longest, *rest = sorted(values, reverse=True)
    second = rest[0] if rest else longest
    return math.ceil(second * 1.1) if longest > _CROP * second else longest


def _conditions(result: dict[str, Any]) -> str:
    latency = result["store"]["latency_ms"]
    store = f"S3 on loopback, {latency:g} ms to the first byte" if latency else "S3 on loopback"
    return f"medians of {result['runs']} starts in turn · {store} · {_name_machine(result)}"


def draw_warm(result: dict[str, Any], path: Path) -> None:
    """Draw what each case takes in the bare runtime, in ours and in the usual handler, on a logarithmic axis."""
    cases = result["cases"]
    with _figure(path, len(cases)) as axes:
        for place, case in enumerate(cases.values()):
            times = [max(case[key], 1.0) for key in ("raw_us", "lean_us", "p50_us", "usual_us")]
            axes.plot([min(times), max(times)], [place, place], color=_FAINT, linewidth=2, zorder=1)
        series = (
            ("raw_us", "the bare run", "|", _FLOOR),
            ("lean_us", "litelambda, lean bootstrap", "o", _OURS),
            ("p50_us", "litelambda, stock client", "D", "#66a5ad"),
            ("usual_us", f"{USUAL}: boto3, numpy, Powertools", "s", _THEIRS),
        )
        for key, label, marker, color in series:
            values = [max(case[key], 1.0) for case in cases.values()]
            axes.scatter(values, range(len(cases)), label=label, marker=marker, color=color, s=48, zorder=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda us, _place: f"{us:,.0f} µs" if us < 1000 else f"{us / 1000:,.0f} ms")
        _label_rows(axes, [name.replace("_", " ") for name in cases])
        axes.set_xlabel("on top of hello world's round trip, median")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2, frameon=False)
        _add_title(axes, "Warm predictions", f"{result['invokes']:,} invokes each · {_name_machine(result)}")


def draw_growth(result: dict[str, Any], path: Path) -> None:
    """Draw a panel for each curve that was measured, on logarithmic axes."""
    curves = result["curves"]
    with _panels(path, len(curves)) as panels:
        for axes, (name, points) in zip(panels, curves.items(), strict=True):
            key, label, lines = _PANELS[name]
            for column, title, color in lines:
                values = [max(point[column], 0.01) for point in points]
                axes.plot([point[key] for point in points], values, "o-", markersize=4, label=title, color=color)
            axes.set(xscale="log", yscale="log", xlabel=label)
            axes.yaxis.set_major_formatter(lambda ms, _place: f"{ms:,.0f} ms" if ms < 1000 else f"{ms / 1000:,.0f} s")
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(color=_FAINT, linewidth=0.6)
            axes.legend(frameon=False, fontsize=8.5)
        _add_title(panels[0], "Growth", f"medians of {result['runs']} · {_name_machine(result)}")


def draw_costs(estimate: Estimate, path: Path) -> None:
    """Draw what each platform costs by requests a month, both on logarithmic axes, with the load as a line across."""
    requests, curves = estimate.curves()
    case = estimate.case
    with _figure(path, _COST_ROWS) as axes:
        shades = iter(_COST_SHADES)
        for name in PLATFORMS:
            if name in curves:
                axes.plot(requests, curves[name], label=PLATFORMS[name].title, linewidth=1.6, **next(shades))
        axes.axvline(case.load.requests, color=_FLOOR, linewidth=0.9, linestyle=(0, (4, 3)), zorder=0)
        axes.set(xscale="log", yscale="log", xlabel="requests a month", ylabel="USD a month")
        axes.xaxis.set_major_formatter(lambda count, _place: f"{count / 1e6:,g} M" if count >= 1e6 else f"{count:,.0f}")
        axes.yaxis.set_major_formatter(lambda usd, _place: f"{usd:,.2g}" if usd < 1 else f"{usd:,.0f}")
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(color=_FAINT, linewidth=0.6)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), frameon=False, fontsize=8.5)
        function = f"a function of {case.memory_mb} MB on {case.architecture}"
        _add_title(axes, f"What {case.profile.model} costs", f"{function} · {case.prices.region} · list prices")


@contextmanager
def _figure(path: Path, rows: int) -> Iterator[Axes]:
    """A figure with as much height as it has rows, written to a file at the end of the block."""
    with _panels(path, 1, (_WIDTH_INCHES, _FRAME_INCHES + _ROW_INCHES * rows)) as (axes,):
        yield axes


@contextmanager
def _panels(path: Path, count: int, size: tuple[float, float] | None = None) -> Iterator[Sequence[Axes]]:
    """Panels side by side, each of a size in inches, written to a file at the end of the block."""
    # Here, so that a benchmark that draws nothing does not wait for matplotlib.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        made = Figure(figsize=size or (_PANEL_INCHES * count, _PANEL_INCHES), layout="constrained")
        yield list(made.subplots(1, count, squeeze=False)[0])
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        made.savefig(path, dpi=160, metadata=metadata, bbox_inches="tight")


def _label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows, from the top down, and leave only the lines that a reader needs."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(_FAINT)
    axes.grid(axis="x", color=_FAINT, linewidth=0.6)
    axes.set_axisbelow(True)


def _add_title(axes: Axes, title: str, subtitle: str) -> None:
    """What the chart shows, and under it how it was measured."""
    axes.set_title(title, loc="left", fontweight="bold", pad=20)
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, color=_FLOOR, fontsize=8.5, va="bottom")


def _name_machine(result: dict[str, Any]) -> str:
    """The machine of a result, for a subtitle."""
    machine = result["machine"]
    return f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}"
