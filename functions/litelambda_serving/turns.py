"""Turns of requests: which may run now, and which wait, without a thread. Knows names of models, and nothing of them.

Models take turns, whatever the number of requests for each: many for one hardly delay those for another.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic

from litelambda_serving.errors import BusyError

__all__ = ["Turns"]


class Turns:
    """Whose turn it is. Used by one event loop alone."""

    def __init__(self, total: int, per_model: int, limit: int) -> None:
        """Make room for requests.

        Args:
            total: requests that may run at the same time.
            per_model: requests for one model that may.
            limit: requests that may wait.
        """
        self._free = total
        self._per_model = per_model
        self._limit = limit
        self._num_waiting = 0
        self._running: dict[str, int] = {}
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}

    async def wait(self, model: str, deadline: float) -> None:
        """Wait for the turn of a request, which `end` ends.

        Raises:
            BusyError: too many wait already, or this one has for too long.
        """
        if self._free and self._running.get(model, 0) < self._per_model:
            self._begin(model)
            return
        if self._num_waiting >= self._limit:
            raise BusyError(f"{self._num_waiting} requests are waiting: try again")
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(model, deque()).append(turn)
        self._num_waiting += 1
        timer = asyncio.get_running_loop().call_later(deadline - monotonic(), turn.cancel)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.end(model)  # it was this one's turn
            if monotonic() >= deadline:
                raise BusyError("the request has waited for too long: try again") from None
            raise
        finally:
            self._num_waiting -= 1
            timer.cancel()

    def end(self, model: str) -> None:
        """End a turn; the next in line begins, of the model that has waited longest for one."""
        self._free += 1
        self._running[model] -= 1
        if not self._running[model]:
            del self._running[model]
        for name in list(self._waiting):
            if not self._free:
                return
            if self._running.get(name, 0) >= self._per_model:
                continue
            line = self._waiting.pop(name)
            while line and line[0].done():  # gave up
                line.popleft()
            if line:
                self._begin(name)
                line.popleft().set_result(None)
            if line:
                self._waiting[name] = line

    def _begin(self, model: str) -> None:
        self._free -= 1
        self._running[model] = self._running.get(model, 0) + 1
