"""Ctrl-C during a build or an import: once it came, nothing is published.

Python raises KeyboardInterrupt wherever the main thread happens to be. Raised in a finalizer or a weak reference's
callback, of which TensorFlow has thousands, or in a callback of native code, it is dropped, and the program goes on as
if nothing had been asked. So it is noted as well, and raised again wherever a build passes: at the beginning and the
end of every stage, with every report of progress, and before a version can be read.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

_STDERR = 2


class _State:
    noted = False
    committed = False


@contextmanager
def interrupts_noted() -> Iterator[None]:
    """Note Ctrl-C while the block runs; outside the main thread, and where it is ignored, all stays as it is."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    _State.noted = _State.committed = False
    signal.signal(signal.SIGINT, _take)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _State.noted = _State.committed = False


def note_interrupt() -> None:
    """Note a Ctrl-C that another handler takes."""
    _State.noted = True


def raise_if_interrupted() -> None:
    """Raise what was noted, if it was lost.

    Raises:
        KeyboardInterrupt: there was a Ctrl-C, before `commit`.
    """
    if _State.noted and not _State.committed:
        raise KeyboardInterrupt


def commit() -> None:
    """From here on a build ends: the version is made readable and aliases move, or neither; a first Ctrl-C is too late.

    Raises:
        KeyboardInterrupt: there was one already.
    """
    raise_if_interrupted()
    _State.committed = True
    if _State.noted:  # between the two
        _State.committed = False
        raise KeyboardInterrupt


def _take(_signal: int, _frame: FrameType | None) -> None:
    is_first, _State.noted = not _State.noted, True
    if not (_State.committed and is_first):
        raise KeyboardInterrupt
    with suppress(OSError):  # past sys.stderr, which may be in the middle of a write
        os.write(_STDERR, b"\nlitelambda: the version is being published already; again to stop at once\n")
