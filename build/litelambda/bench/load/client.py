"""The clients of `litelambda bench load`, in a process of their own that shares neither core nor GIL with a server.

    python client.py < plan.json > figures.json

A plan has `host`, `port`, `cases` (each with `name`, `path`, `headers`, `body` and the `answer` that it must get, in
base64), and either `clients` that ask one request after the other, or a `rate` of requests a second that arrive by
chance; and `seconds`, `requests` or both, whichever is over first. Times begin when a request was due, not when it
could be sent. The standard library alone: an environment needs nothing to run it.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import sys
import time
from typing import Any

_TIMEOUT_SECONDS = 60
_MOST_CONNECTIONS = 1024


class Connection(asyncio.Protocol):
    """A kept-alive connection with one request at a time."""

    def __init__(self) -> None:
        self._received = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what requests are written to."""
        self._transport = transport

    async def ask(self, request: bytes) -> tuple[int, bytes]:
        """Send a request; its answer's status and body."""
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        """Take a part of the answer; with the last one, hand it on."""
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n")
        if end < 0 or self._answer is None:
            return
        length = 0
        for line in bytes(received[:end]).lower().split(b"\r\n")[1:]:
            if line.startswith(b"content-length:"):
                length = int(line[15:])
        if len(received) < end + 4 + length:
            return
        status, body = int(received[9:12]), bytes(received[end + 4 : end + 4 + length])
        received.clear()
        answer, self._answer = self._answer, None
        answer.set_result((status, body))

    def connection_lost(self, error: Exception | None) -> None:
        """Fail the request at hand."""
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(error or ConnectionError("closed without an answer"))

    def close(self) -> None:
        """Close it."""
        self._transport.close()


class Load:
    """One run of a plan."""

    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._host, self._port = plan["host"], plan["port"]
        self._chance = random.Random(20261129)  # noqa: S311 - the same arrivals in each run
        self._cases = [
            (case["name"], request_of(plan, case), base64.b64decode(case["answer"]) if case.get("answer") else None)
            for case in plan["cases"]
        ]
        self._left = plan.get("requests") or sys.maxsize
        self._turn = 0
        self._ends = float("inf")
        self.times: dict[str, list[float]] = {name: [] for name, _, _ in self._cases}
        self.errors: dict[str, int] = {}

    async def run(self) -> dict[str, Any]:
        """Run it; the figures."""
        idle = [await self._connect() for _ in range(self._plan.get("clients") or 1)]
        began = time.perf_counter()
        self._ends = began + (self._plan.get("seconds") or 1e9)
        if "rate" in self._plan:
            await self._arrive(idle, self._plan["rate"])
        else:
            idle = await asyncio.gather(*map(self._ask_on, idle))
        seconds = time.perf_counter() - began
        for connection in idle:
            connection.close()
        return {"seconds": seconds, "times_ms": self.times, "errors": self.errors}

    async def _connect(self) -> Connection:
        return (await asyncio.get_running_loop().create_connection(Connection, self._host, self._port))[1]

    def _next(self) -> tuple[str, bytes, bytes | None] | None:
        """The next case in turn, or None at the end."""
        if not self._left or time.perf_counter() >= self._ends:
            return None
        self._left -= 1
        self._turn += 1
        return self._cases[self._turn % len(self._cases)]

    async def _ask_on(self, connection: Connection) -> Connection:
        """One request after the other."""
        while (case := self._next()) is not None:
            connection = await self._ask(connection, case, time.perf_counter())
        return connection

    async def _ask(self, connection: Connection, case: tuple[str, bytes, bytes | None], due: float) -> Connection:
        name, request, expected = case
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                status, body = await connection.ask(request)
        except (OSError, TimeoutError) as error:
            self._count(type(error).__name__)
            connection.close()
            return await self._connect()
        if status != 200:
            self._count(f"status {status}")
        elif expected is not None and body != expected:
            self._count("another answer")
        else:
            self.times[name].append((time.perf_counter() - due) * 1000)
        return connection

    def _count(self, what: str) -> None:
        self.errors[what] = self.errors.get(what, 0) + 1

    async def _arrive(self, idle: list[Connection], rate: float) -> None:
        """Requests that arrive whether those before were answered or not, by chance: a Poisson process."""
        pending: set[asyncio.Task[None]] = set()
        due = time.perf_counter()

        async def answer(case: tuple[str, bytes, bytes | None], due: float) -> None:
            connection = idle.pop() if idle else await self._connect()
            idle.append(await self._ask(connection, case, due))

        while (case := self._next()) is not None:
            due += self._chance.expovariate(rate)
            await asyncio.sleep(max(0.0, due - time.perf_counter()))
            if len(pending) >= _MOST_CONNECTIONS:
                self._count("no connection left")
                continue
            task = asyncio.create_task(answer(case, due))
            pending.add(task)
            task.add_done_callback(pending.discard)
        await asyncio.gather(*pending)


def request_of(plan: dict[str, Any], case: dict[str, Any]) -> bytes:
    """A case as the bytes of its request."""
    body = base64.b64decode(case["body"])
    headers = {"Host": f"{plan['host']}:{plan['port']}", **case["headers"], "Content-Length": str(len(body))}
    lines = [f"POST {case['path']} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


if __name__ == "__main__":
    json.dump(asyncio.run(Load(json.load(sys.stdin)).run()), sys.stdout)
