"""How a benchmark shows itself to a person: a line of progress while it runs, a table when it is done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from litelambda.bench.conversion_table import markdown

_MIN_WIDTH = 100  # where there is no terminal, rich would take 80 columns and cut figures off
_CLEAR_LINE = "\r\x1b[2K"


class Progress:
    """One line on stderr that tells how far a benchmark is; silent unless stderr is a terminal."""

    def __init__(self, what: str, total: int) -> None:
        self._what = what
        self._total = total
        self._done = 0
        self._shown = sys.stderr.isatty()

    def step(self, name: str) -> None:
        """Say that the next piece of work, `name`, begins."""
        self._done += 1
        self.say(name)

    def say(self, name: str) -> None:
        """Say what the piece of work is at now."""
        if self._shown:
            print(f"{_CLEAR_LINE}{self._what}: {self._done}/{self._total} {name}", end="", file=sys.stderr, flush=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._shown:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)


def show_cold(result: dict[str, Any]) -> None:
    """Print the table of `bench cold`."""
    floor = result["handlers"].get("hello", {}).get("init_ms")
    rows = []
    for name, numbers in result["handlers"].items():
        rows.append(
            (
                name,
                f"{numbers['init_ms']:.1f}",
                f"{numbers['init_ms_min']:.0f}-{numbers['init_ms_max']:.0f}",
                f"{numbers['init_ms'] - floor:+.1f}" if floor and name != "hello" else "",
                f"{numbers['init_ms'] / floor:.2f}" if floor else "",
                f"{numbers['first_ms']:.2f}",
                f"{numbers['rss_mb']:.1f}",
            )
        )
    headings = ("handler", "INIT ms", "min-max", "added", "÷ floor", "first ms", "peak MB")
    ratios = result["ratios"]
    titles = [f"{name}: {numbers['title']}" for name, numbers in result["handlers"].items()]
    notes = [f"median of {result['runs']} starts each, in turn; S3 on loopback, {result['store']['latency_ms']:g} ms"]
    if ratios.get("added_vs_usual"):
        fastest = result["ratios_of_fastest"]["added_vs_usual"]
        of_fastest = f" ({fastest:.1f} x by the fastest starts)" if fastest else ""
        notes.append(
            f"the usual handler adds {ratios['added_vs_usual']:.1f} x what litelambda adds to hello world{of_fastest}"
        )
    _show(headings, rows, result, [*titles, *notes])


def show_warm(result: dict[str, Any]) -> None:
    """Print the table of `bench warm`."""
    rows = [
        (
            name,
            f"{case['p50_us']:.0f}",
            f"{case['p99_us']:.0f}",
            f"{case['lean_us']:.0f}",
            f"{case['usual_us']:.0f}",
            f"{case['raw_us']:.0f}",
            "-" if case["ratio"] is None else f"{case['ratio']:.2f}",
            "-" if case["over_raw"] is None else f"{case['over_raw']:.2f}",
            f"{case['hello_us']:.0f}",
        )
        for name, case in result["cases"].items()
    ]
    headings = ("case", "p50 µs", "p99 µs", "lean µs", "usual µs", "raw µs", "÷ usual", "÷ raw", "hello µs")
    notes = [
        f"{result['invokes']} invokes each, in turns of {result['block']}; all but raw on top of hello world's p50"
    ]
    _show(headings, rows, result, notes)


def show_batch(result: dict[str, Any]) -> None:
    """Print the table of `bench batch`."""
    rows = [
        (
            name,
            f"{case['rows_per_s']:,}",
            f"{case['ratio_to_raw']:.2f}",
            f"{case['ratio_to_usual']:.2f}",
            f"{case['batch_size']}",
            f"{case['peak_rss_mb']:.0f}",
            f"{result['scaling'][name]['time_ratio']:.1f}",
            f"{result['scaling'][name]['rss_ratio']:.2f}",
        )
        for name, case in result["cases"].items()
    ]
    headings = (
        "case",
        "rows/s",
        "x raw",
        "x usual",
        "batch",
        "peak MB",
        "10 x rows: time",
        "memory",
    )
    notes = ["rows per second of CPU time, the median of all turns; raw keeps nothing, usual is what people write"]
    _show(headings, rows, result, notes)


def show_conversion(result: dict[str, Any]) -> None:
    """Print the tables of `bench conversion`, as its documentation has them."""
    print(markdown(result))


def _show(headings: Sequence[str], rows: Sequence[Sequence[str]], result: dict[str, Any], notes: list[str]) -> None:
    # Here, so that neither `--json` nor another command waits for rich.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    model, machine = result["model"], result["machine"]
    table = Table(
        title=f"{model['name']} version {model['version']}, artifact of {model['artifact_bytes']:,} bytes",
        box=box.SIMPLE,
    )
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=not index)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, _MIN_WIDTH)
    console.print(table)
    for note in [*notes, *result["notes"]]:
        console.print(note, highlight=False)
    console.print(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}", highlight=False)
