"""Progress of a build: on a terminal, in lines elsewhere, not at all for scripts."""

from __future__ import annotations

import io
import os
import re
import select
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import TextIO

import pytest

from litelambda.common.progress import PlainReporter, Reporter, TerminalReporter, open_reporter


@pytest.fixture
def terminal() -> Iterator[tuple[int, TextIO]]:
    """A pseudo-terminal: what is read from, and what is written to."""
    reader, writer = os.openpty()
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
    os.close(reader)


def test_a_finished_stage_is_a_line() -> None:
    """Name, seconds and what came of it; nothing while it runs."""
    stream = io.StringIO()
    with PlainReporter(stream).stage("train") as stage:
        stage.progress(0.5, "epoch 1/2")
        assert stream.getvalue() == ""
        stage.summary = "55,050 parameters"
    assert stream.getvalue().split() == ["train", f"{stage.seconds:.1f}", "s", "55,050", "parameters"]


def test_a_long_stage_says_now_and_then_that_it_is_alive(monkeypatch: pytest.MonkeyPatch) -> None:
    """A line with its share and what it does, once the last line is long enough ago."""
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    monkeypatch.setattr("litelambda.common.progress.time", clock)
    stream = io.StringIO()
    with PlainReporter(stream).stage("compress") as stage:
        now[0] += 59
        stage.progress(0.1, "int8: measuring")
        now[0] += 1
        stage.progress(0.25, "rank 1/4: epoch 1/4")
        stage.progress(0.26, "rank 1/4: epoch 2/4")
    [alive, _ended] = stream.getvalue().splitlines()
    assert alive.split() == ["compress", "25%", "rank", "1/4:", "epoch", "1/4"]


def test_a_failed_stage_is_left_to_its_error() -> None:
    """The exception passes, timed, and no line claims success."""
    stream = io.StringIO()
    with pytest.raises(KeyboardInterrupt), PlainReporter(stream).stage("train") as stage:
        raise KeyboardInterrupt
    assert stream.getvalue() == ""
    assert stage.seconds > 0


def test_a_terminal_gets_a_bar(terminal: tuple[int, TextIO]) -> None:
    """A bar that moves, then a tick for what succeeded, a cross for what failed."""
    reader, stream = terminal
    reporter = TerminalReporter(stream)
    with reporter.stage("data") as stage:
        stage.progress(0.25, "reading [this]")
        shown = read_until(reader, "reading [this]")
        stage.summary = "600 rows [of 4]"
    with pytest.raises(ValueError, match="no"), reporter.stage("train"):
        raise ValueError("no")
    shown += read_until(reader, "✗")
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", shown)
    assert " 25% reading [this]" in shown
    assert "━" in shown
    assert "✓" in shown
    assert "600 rows [of 4]" in shown
    assert "✗" in shown


def read_until(reader: int, text: str) -> str:
    """What a terminal shows up to a text; all there is where the text does not come."""
    shown = b""
    while text.encode() not in shown and select.select([reader], [], [], 60)[0]:
        shown += os.read(reader, 65536)
    return shown.decode(errors="replace")


def test_who_watches_decides(monkeypatch: pytest.MonkeyPatch, terminal: tuple[int, TextIO]) -> None:
    """Lines without a terminal, silence for scripts, the live line wherever a person watches."""
    assert type(open_reporter()) is PlainReporter
    assert type(open_reporter(terminal_only=True)) is Reporter
    monkeypatch.setattr("sys.stderr", terminal[1])
    assert type(open_reporter(terminal_only=True)) is TerminalReporter
