"""How a benchmark shows itself to a person: a line of progress while it runs, a table when it is done."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

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


def show_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], result: dict[str, Any], notes: Sequence[str]
) -> None:
    """Print a table with the model above it, and below it notes and the machine."""
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
