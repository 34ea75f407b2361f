"""A call in its own thread, with a result to wait for: all that INIT needs of `concurrent.futures`."""

from __future__ import annotations

from _thread import allocate_lock, start_new_thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

__all__ = ["Background", "start_in_order"]


class Background:
    """A call that starts at once in its own thread; `result` waits for it.

    `_thread` rather than `threading`: a primitive lock is all that is needed, and INIT does not pay for more.

    >>> Background(divmod, 7, 2).result()
    (3, 1)
    """

    __slots__ = ("_done", "_error", "_value")

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._value: Any = None
        self._error: BaseException | None = None
        self._done = allocate_lock()
        self._done.acquire()
        start_new_thread(self._run, (function, arguments))

    def _run(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        try:
            self._value = function(*arguments)
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that asks for the result
            self._error = error
        self._done.release()

    def result(self) -> Any:
        """Wait for the call; return its value or raise its error."""
        with self._done:
            if self._error is not None:
                raise self._error
            return self._value


def start_in_order(
    function: Callable[..., Any], arguments: Iterable[Any], at_once: int
) -> Iterator[tuple[Any, Background]]:
    """Call a function for each argument, so many at once; yield the arguments and their calls in order.

    >>> [call.result() for _, call in start_in_order(abs, [-3, 2, -1], at_once=2)]
    [3, 2, 1]
    """
    window: list[tuple[Any, Background]] = []
    for argument in arguments:
        window.append((argument, Background(function, argument)))
        if len(window) == at_once:
            yield window.pop(0)
    yield from window
