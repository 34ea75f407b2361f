"""Ctrl-C during a build, an import or a scoring job: none is lost, and none comes where it would do harm.

Python raises KeyboardInterrupt wherever the main thread happens to be. Raised in a finalizer or a weak reference's
callback, of which TensorFlow has thousands, or in a callback of native code, it is dropped, and the program continues
as if nothing had been asked. So it is noted as well, and raised again wherever a command passes: at the beginning and
the end of every stage, with every report of progress, and before a version can be read.

Where raising it at once would do harm, `hold` keeps the first one back until the next such place.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_STDERR = 2
_CLEAR_LINE = "\r\x1b[2K"  # of a progress bar


class _State:
    noted = False
    held: str | None = None  # what to say when the first one comes, "" for nothing; None where none is held back
    committed = False


@contextmanager
def interrupts_noted(*others: signal.Signals) -> Iterator[None]:
    """Note Ctrl-C while the block runs.

    All stays as it is outside the main thread, inside another such block, where signals are ignored (as by nohup, or by
    a shell for what runs in its background), and where a handler is not Python's own.

    Args:
        others: signals to take as Ctrl-C, such as a service manager's SIGTERM.
    """
    defaults = (signal.default_int_handler, signal.SIG_DFL)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, *others)}
    taken = {number: handler for number, handler in before.items() if handler in defaults}
    if not taken or threading.current_thread() is not threading.main_thread():
        yield
        return
    _reset()
    for number in taken:
        signal.signal(number, _take)
    try:
        yield
    finally:
        for number, handler in taken.items():
            signal.signal(number, handler)
        _reset()


def interrupted() -> bool:
    """Whether there was a Ctrl-C, before `commit`."""
    return _State.noted and not _State.committed


def raise_if_interrupted() -> None:
    """Raise what was noted, if it was lost or held back.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C, before `commit`.
    """
    if interrupted():
        raise KeyboardInterrupt


def hold(message: str = "") -> None:
    """From here on, keep the first Ctrl-C back until `raise_if_interrupted` or `let_go`; a second one does not wait.

    Args:
        message: what to say on stderr when it comes.
    """
    _State.held = message


def let_go() -> None:
    """Hold nothing back any more.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C.
    """
    _State.held = None
    raise_if_interrupted()


def commit() -> None:
    """From here on a build ends: the version is made readable and aliases move, or neither; a first Ctrl-C is too late.

    Raises:
        KeyboardInterrupt: there was one already.
    """
    raise_if_interrupted()
    hold("the version is being published already; again to stop at once")
    _State.committed = True
    if _State.noted:  # between the two
        _State.committed = False
        raise KeyboardInterrupt


def _reset() -> None:
    _State.noted = _State.committed = False
    _State.held = None


def _take(_signal: int, _frame: FrameType | None) -> None:
    is_first, _State.noted = not _State.noted, True
    if _State.held is None or not is_first:
        raise KeyboardInterrupt
    if _State.held:
        start = _CLEAR_LINE if sys.stderr.isatty() else ""
        with suppress(OSError):  # past sys.stderr, which may be in the middle of a write
            os.write(_STDERR, f"{start}litelambda: {_State.held}\n".encode())
