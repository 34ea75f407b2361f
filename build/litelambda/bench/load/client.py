"""The clients of `litelambda bench load`, in a process of their own that shares neither core nor GIL with a server.

    python client.py < plan.json > figures.json

A plan has `host`, `port`, `cases` (each with `name`, `path`, `headers`, `body` and the `answer` that it must get, in
base64), and either `clients` that ask one request after the other, or a `rate` of requests a second, which arrive by
chance, or one each 1/rate seconds if `even`, on any connection of as many; and `seconds`, `requests` or both,
whichever is over first. Times begin when a request was due, not when it could be sent. The standard library alone: an
environment needs nothing to run it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import select
import selectors
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

_TIMEOUT_SECONDS = 60
_MOST_CONNECTIONS = 1024


@dataclass(frozen=True)
class Case:
    """A request, and the body that it must be answered with; None for any."""

    name: str
    request: bytes
    expected: bytes | None


class Connection(asyncio.Protocol):
    """A kept-alive connection with one request at a time.

    Attributes:
        is_open: whether it can be asked.
        case: what it is asked now; None if nothing.
        due: when that request was due.
    """

    def __init__(self, ended: Callable[[Connection, str], None]) -> None:
        """Make one that calls `ended` after each request, with what went wrong or ""."""
        self.is_open = False
        self.case: Case | None = None
        self.due = 0.0
        self._ended = ended
        self._received = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what requests are written to."""
        self._transport = transport
        self.is_open = True

    def ask(self, case: Case, due: float) -> None:
        """Send a request."""
        self.case, self.due = case, due
        self._transport.write(case.request)

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer; with the last one, compare it."""
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n")
        if end < 0 or self.case is None:
            return
        head = received[:end].lower()
        length = int(head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0] or 0)
        if len(received) < end + 4 + length:
            return
        status, expected = int(head[9:12]), self.case.expected
        is_expected = expected is None or received[end + 4 : end + 4 + length] == expected
        received.clear()
        self._ended(self, f"status {status}" if status != 200 else "" if is_expected else "another answer")

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request at hand; servers also close what has been idle for seconds."""
        self.is_open = False
        if self.case is not None:
            self._ended(self, type(error or ConnectionError()).__name__)

    def give_up(self) -> None:
        """Fail a request that is not answered."""
        self._ended(self, "TimeoutError")
        self.close()

    def close(self) -> None:
        """Close it."""
        self.is_open = False
        self._transport.abort()


class Load:
    """One run of a plan."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._chance = random.Random(20261129)  # noqa: S311 - the same arrivals in each run
        self._cases = [
            Case(case["name"], request_of(plan, case), base64.b64decode(case["answer"]) if case.get("answer") else None)
            for case in plan["cases"]
        ]
        self._asks_on = "rate" not in plan
        self._left = plan.get("requests") or sys.maxsize
        self._turn = 0
        self._ends = self._last = float("inf")
        self._idle: list[Connection] = []
        self._busy: set[Connection] = set()
        self._connecting: set[asyncio.Task[None]] = set()
        self.times: dict[str, list[float]] = {case.name: [] for case in self._cases}
        self.errors: dict[str, int] = {}

    async def run(self) -> dict[str, Any]:
        """Run it; the figures."""
        self._idle = [await self._connect() for _ in range(self._plan.get("clients") or 1)]
        began = self._last = time.perf_counter()
        self._ends = began + (self._plan.get("seconds") or 1e9)
        if self._asks_on:
            connections, self._idle = self._idle, []
            for connection in connections:
                self._ask_next(connection)
        else:
            await self._arrive(self._plan["rate"])
        while self._busy or self._connecting:
            await asyncio.sleep(0.05)
            for connection in [each for each in self._busy if time.perf_counter() - each.due > _TIMEOUT_SECONDS]:
                connection.give_up()
        for connection in self._idle:
            connection.close()
        figures = {"seconds": self._last - began, "times_ms": self.times, "errors": self.errors}
        return {**figures, "cpu_seconds": time.process_time()}

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        host, port = self._plan["host"], self._plan["port"]
        return (await loop.create_connection(lambda: Connection(self._ended), host, port))[1]

    def _next(self) -> Case | None:
        """The next case in turn, or None at the end."""
        if not self._left or time.perf_counter() >= self._ends:
            return None
        self._left -= 1
        self._turn += 1
        return self._cases[self._turn % len(self._cases)]

    def _ask_next(self, connection: Connection) -> None:
        """One request after the other."""
        case = self._next()
        if case is None:
            self._idle.append(connection)
        else:
            self._ask(connection, case, time.perf_counter())

    def _ask(self, connection: Connection | None, case: Case, due: float) -> None:
        """Ask on a connection, on a new one where it is closed by now."""
        if connection is not None and connection.is_open:
            self._busy.add(connection)
            connection.ask(case, due)
            return
        task = asyncio.ensure_future(self._ask_new(case, due))
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)

    async def _ask_new(self, case: Case, due: float) -> None:
        try:
            self._ask(await self._connect(), case, due)
        except OSError as error:
            self._count(type(error).__name__)

    def _ended(self, connection: Connection, error: str) -> None:
        """Count a request that has ended; its connection is idle, or asks on."""
        case, connection.case = connection.case, None
        self._last = time.perf_counter()
        self._busy.discard(connection)
        if error:
            self._count(error)
        elif case is not None:
            self.times[case.name].append((self._last - connection.due) * 1000)
        if self._asks_on:
            self._ask_next(connection)
        else:
            self._idle.append(connection)

    def _count(self, what: str) -> None:
        self.errors[what] = self.errors.get(what, 0) + 1

    async def _arrive(self, rate: float) -> None:
        """Requests that arrive whether those before were answered or not, each on any idle connection.

        By chance they are a Poisson process: what many clients are together that know nothing of each other.
        """
        is_even = self._plan.get("even", False)
        due = time.perf_counter()
        while (case := self._next()) is not None:
            due += 1 / rate if is_even else self._chance.expovariate(rate)
            while (left := due - time.perf_counter()) > 0:
                await asyncio.sleep(left)
            if len(self._busy) + len(self._connecting) >= _MOST_CONNECTIONS:
                self._count("no connection left")
                continue
            self._ask(self._any_idle(), case, due)

    def _any_idle(self) -> Connection | None:
        idle = self._idle
        if not idle:
            return None
        place = self._chance.randrange(len(idle))
        idle[place], idle[-1] = idle[-1], idle[place]
        return idle.pop()


def request_of(plan: dict[str, Any], case: dict[str, Any]) -> bytes:
    """A case as the bytes of its request."""
    body = base64.b64decode(case["body"])
    headers = {"Host": f"{plan['host']}:{plan['port']}", **case["headers"], "Content-Length": str(len(body))}
    lines = [f"POST {case['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class _Selector(selectors.DefaultSelector):
    """Waits to the microsecond: epoll itself rounds up to whole milliseconds."""

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """See `selectors.BaseSelector.select`."""
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Selector())) as runner:
        json.dump(runner.run(Load(json.load(sys.stdin)).run()), sys.stdout)
