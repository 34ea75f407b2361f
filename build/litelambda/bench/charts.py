"""What the charts of the benchmarks share, for a README: SVG or PNG by the file's name."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from litelambda.common.errors import UsageError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_KINDS = (".svg", ".png")
OUR_COLOR, THEIR_COLOR, FLOOR_COLOR, _INK, FAINT_COLOR = "#0b7285", "#adb5bd", "#495057", "#212529", "#dee2e6"
_STYLE: Any = {
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 10,
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "xtick.color": FLOOR_COLOR,
    "ytick.color": _INK,
    "svg.hashsalt": "litelambda",  # the same result, the same file
}
_ROW_INCHES, _FRAME_INCHES, _WIDTH_INCHES = 0.38, 1.25, 8.0


def check_chart_path(path: Path | None) -> None:
    """Refuse a chart that could not be written, before anything is measured.

    Raises:
        UsageError: another kind of file, or a folder that does not exist.
    """
    if path is not None and (path.suffix not in _KINDS or not path.parent.is_dir()):
        raise UsageError(f"--chart {path}: expected a .svg or .png file in a folder that exists")


@contextmanager
def figure(path: Path, rows: int) -> Iterator[Axes]:
    """A figure with as much height as it has rows, written to a file at the end of the block."""
    # Here, so that a benchmark that draws nothing does not wait for matplotlib.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        made = Figure(figsize=(_WIDTH_INCHES, _FRAME_INCHES + _ROW_INCHES * rows), layout="constrained")
        yield made.add_subplot()
        metadata = {"Date": None} if path.suffix == ".svg" else {}
        made.savefig(path, dpi=160, metadata=metadata, bbox_inches="tight")


def label_rows(axes: Axes, names: Sequence[str]) -> None:
    """Name the rows, from the top down, and leave only the lines that a reader needs."""
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(FAINT_COLOR)
    axes.grid(axis="x", color=FAINT_COLOR, linewidth=0.6)
    axes.set_axisbelow(True)


def add_title(axes: Axes, title: str, subtitle: str) -> None:
    """What the chart shows, and under it how it was measured."""
    axes.set_title(title, loc="left", fontweight="bold", pad=20)
    axes.text(0, 1.02, subtitle, transform=axes.transAxes, color=FLOOR_COLOR, fontsize=8.5, va="bottom")


def name_machine(result: dict[str, Any]) -> str:
    """The machine of a result, for a subtitle."""
    machine = result["machine"]
    return f"{machine['cores']} cores of {machine['cpu']}, Python {machine['python']}"
