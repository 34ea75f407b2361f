"""Ctrl-C: noted, raised again, or held back."""

from __future__ import annotations

import signal
import threading

import pytest

from litelambda.common.interrupts import hold, interrupted, interrupts_noted, let_go, raise_if_interrupted


def interrupt(number: int = signal.SIGINT) -> None:
    signal.raise_signal(number)


def test_one_that_was_dropped_is_raised_again() -> None:
    """Whatever swallowed the first KeyboardInterrupt, the next place that is passed raises it."""
    with interrupts_noted():
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        with pytest.raises(KeyboardInterrupt):
            raise_if_interrupted()
    assert not interrupted()
    raise_if_interrupted()


def test_the_first_is_held_back_and_the_second_is_not(capfd: pytest.CaptureFixture[str]) -> None:
    """Between `hold` and `let_go` a Ctrl-C is said to have come, and raised at the end; another one at once."""
    with interrupts_noted():
        hold("in a moment")
        interrupt()
        assert capfd.readouterr().err == "litelambda: in a moment\n"
        with pytest.raises(KeyboardInterrupt):
            interrupt()
        with pytest.raises(KeyboardInterrupt):
            let_go()


def test_other_signals_are_taken_and_given_back() -> None:
    """A service manager's stop counts as Ctrl-C inside the block alone; what was ignored stays ignored."""
    before = signal.getsignal(signal.SIGTERM)
    with interrupts_noted(signal.SIGTERM), pytest.raises(KeyboardInterrupt):
        interrupt(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with interrupts_noted(signal.SIGTERM):
            interrupt(signal.SIGTERM)
            assert not interrupted()
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_block_in_a_block_and_one_in_a_thread_change_nothing() -> None:
    """The outer block's Ctrl-C is still noted after an inner one; a thread cannot take signals."""
    with interrupts_noted():
        with pytest.raises(KeyboardInterrupt), interrupts_noted():
            interrupt()
        assert interrupted()
    before, entered = signal.getsignal(signal.SIGINT), []

    def enter() -> None:
        with interrupts_noted():
            entered.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert entered == [before]
