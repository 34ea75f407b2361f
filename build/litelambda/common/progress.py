"""Tells a person how a build is getting on: a bar on a terminal, a line per finished stage elsewhere, or nothing.

Stages only know `Stage.progress` and `Stage.summary`; nothing here knows what a stage does.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from litelambda.common.interrupts import raise_if_interrupted

ReportProgress = Callable[[float, str], None]
"""Called with the share that is done, from 0 to 1, and what is being done."""
_SECONDS_BETWEEN = 60.0
"""The least time between two lines of a stage under way, where no terminal shows a bar."""


class Stage:
    """One stage under way.

    Attributes:
        name: what it is called.
        summary: what came of it, set by whoever runs it and shown when it ends.
        seconds: how long it took, known when it has ended.
    """

    def __init__(self, name: str, reporter: Reporter) -> None:
        self.name = name
        self.summary = ""
        self.seconds = 0.0
        self._reporter = reporter

    def progress(self, fraction: float, text: str) -> None:
        """Say how far the stage is, from 0 to 1, and what it is doing."""
        raise_if_interrupted()
        self._reporter.show_progress(self, fraction, text)


class Reporter:
    """Reports nothing; base of those that do."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Stage]:
        """Run a block as a stage and time it."""
        stage = Stage(name, self)
        started = time.perf_counter()
        self.show_start(stage)
        try:
            raise_if_interrupted()
            yield stage
            raise_if_interrupted()
        except BaseException:
            stage.seconds = time.perf_counter() - started
            self.show_failure(stage)
            raise
        stage.seconds = time.perf_counter() - started
        self.show_end(stage)

    def show_start(self, stage: Stage) -> None:
        """A stage begins."""

    def show_progress(self, stage: Stage, fraction: float, text: str) -> None:
        """A stage is under way."""

    def show_end(self, stage: Stage) -> None:
        """A stage has succeeded."""

    def show_failure(self, stage: Stage) -> None:
        """A stage was left by an exception, which says the rest."""


class PlainReporter(Reporter):
    """A line per finished stage, and one a minute for a stage that takes longer: a log shows that it is alive."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._written = 0.0

    def show_start(self, stage: Stage) -> None:  # noqa: ARG002 - the base's
        """The first minute begins."""
        self._written = time.monotonic()

    def show_progress(self, stage: Stage, fraction: float, text: str) -> None:
        """Write a line if the last one is too long ago."""
        if time.monotonic() - self._written >= _SECONDS_BETWEEN:
            self._write(f"{stage.name:<10}{fraction:7.0%}    {text}")

    def show_end(self, stage: Stage) -> None:
        """Write the stage's line."""
        self._write(f"{stage.name:<10}{stage.seconds:7.1f} s  {stage.summary}")

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()
        self._written = time.monotonic()


class TerminalReporter(Reporter):
    """A bar while a stage runs, a line with a tick when it has ended.

    Args:
        stream: the terminal.
        animated: whether the bar moves by itself, which takes a thread; else with each report alone.
    """

    def __init__(self, stream: TextIO, *, animated: bool = True) -> None:
        from rich.console import Console
        from rich.markup import escape

        self._escape, self._animated = escape, animated
        # A descriptor of its own, to the end: the build holds native libraries' writes to standard error back.
        own = os.fdopen(os.dup(stream.fileno()), "w", buffering=1, closefd=False)
        self._console = Console(file=own, highlight=False)

    def show_start(self, stage: Stage) -> None:
        """Start the bar: it only swings until the stage says how far it is."""
        from rich.progress import BarColumn, Progress, SpinnerColumn, TaskProgressColumn, TextColumn

        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description:<10}"),
            BarColumn(bar_width=24),
            TaskProgressColumn(),
            TextColumn("{task.fields[doing]}", markup=False),
            console=self._console,
            transient=True,
            auto_refresh=self._animated,
        )
        self._task = self._bar.add_task(stage.name, total=None, doing="")
        self._bar.start()

    def show_progress(self, stage: Stage, fraction: float, text: str) -> None:  # noqa: ARG002 - the base's
        """Move the bar."""
        self._bar.update(self._task, total=1.0, completed=fraction, doing=text, refresh=not self._animated)

    def show_end(self, stage: Stage) -> None:
        """Replace the bar with the stage's result."""
        self._bar.stop()
        self._console.print(
            f"[green]✓[/] [bold]{stage.name:<10}[/]{stage.seconds:7.1f} s  {self._escape(stage.summary)}"
        )

    def show_failure(self, stage: Stage) -> None:
        """Replace the bar with a cross."""
        self._bar.stop()
        self._console.print(f"[red]✗[/] [bold]{stage.name:<10}[/]{stage.seconds:7.1f} s")


def open_reporter(*, terminal_only: bool = False, animated: bool = True) -> Reporter:
    """Choose how to report on standard error.

    Args:
        terminal_only: report nothing unless a person watches a terminal.
        animated: see `TerminalReporter`; a benchmark must not be disturbed.
    """
    if sys.stderr.isatty():
        return TerminalReporter(sys.stderr, animated=animated)
    return Reporter() if terminal_only else PlainReporter(sys.stderr)
