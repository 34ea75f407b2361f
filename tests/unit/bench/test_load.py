"""The clients of `bench load`."""

from __future__ import annotations

import asyncio
import base64
import json
import time

import pytest

from litelambda.bench.load.client import Load


def run(plan, answer):
    """Run a plan against a server that answers each body with `answer` of it: a status and a body."""

    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
                reply = answer(await reader.readexactly(length))
                if reply is None:
                    break
                status, body = reply
                writer.write(b"HTTP/1.1 %d X\r\ncontent-length: %d\r\n\r\n" % (status, len(body)))
                await writer.drain()
                writer.write(body)
        except asyncio.IncompleteReadError:
            pass
        finally:
            writer.close()

    async def both():
        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            return await Load({"host": "127.0.0.1", "port": port, **plan}).run()

    return asyncio.run(both())


def case(name, body, answer=None):
    """A case of a plan."""
    fields = {"name": name, "path": "/", "headers": {}, "body": base64.b64encode(body).decode()}
    return fields if answer is None else {**fields, "answer": base64.b64encode(answer).decode()}


def test_every_request_is_counted_once():
    """As many as were asked for, in turn over the cases, whatever the number of clients."""
    figures = run(
        {"clients": 3, "requests": 100, "cases": [case("a", b"1"), case("b", b"2")]}, lambda body: (200, body)
    )
    assert {name: len(times) for name, times in figures["times_ms"].items()} == {"a": 50, "b": 50}
    assert figures["errors"] == {}
    assert json.dumps(figures)


def test_what_goes_wrong_is_counted_by_kind():
    """A status, an answer that is not the expected one and a connection that closes are errors, and have no time."""
    replies = {b"ok": (200, b"yes"), b"other": (200, b"no"), b"busy": (503, b""), b"gone": None}
    cases = [case(name.decode(), name, b"yes") for name in replies]
    figures = run({"clients": 2, "requests": 40, "cases": cases}, replies.get)
    assert {name: len(times) for name, times in figures["times_ms"].items()} == {
        "ok": 10,
        "other": 0,
        "busy": 0,
        "gone": 0,
    }
    assert figures["errors"] == {"another answer": 10, "status 503": 10, "ConnectionError": 10}


async def arrive_after_closing(load, _rate):
    """Requests that each arrive when the connection of the one before is known to be closed."""
    while (case := load._next()) is not None:
        while not load._idle or (load._turn > 1 and load._idle[-1].is_open):
            await asyncio.sleep(0.001)
        load._ask(load._any_idle(), case, time.perf_counter())


def test_a_connection_that_its_server_has_closed_is_replaced(monkeypatch):
    """Servers close what is idle for seconds: a request is sent on another connection, and answered."""
    monkeypatch.setattr(Load, "_arrive", arrive_after_closing)

    async def close_between():
        closed = []

        async def serve(reader, writer):
            length = int((await reader.readuntil(b"\r\n\r\n")).partition(b"Content-Length: ")[2].split()[0])
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 X\r\ncontent-length: 0\r\n\r\n")
            closed.append(writer.close())

        async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            plan = {"host": "127.0.0.1", "port": port, "cases": [case("a", b"1")]}
            return await Load({**plan, "clients": 1, "rate": 50.0, "requests": 5}).run(), closed

    figures, closed = asyncio.run(close_between())
    assert (len(figures["times_ms"]["a"]), len(closed), figures["errors"]) == (5, 5, {})


@pytest.mark.parametrize("even", [False, True])
def test_requests_arrive_at_their_rate(even):
    """By chance or one each 1/rate seconds, none is lost, and none comes before it is due."""
    plan = {"clients": 1, "rate": 200.0, "even": even, "requests": 60, "cases": [case("a", b"1")]}
    figures = run(plan, lambda body: (200, body))
    assert len(figures["times_ms"]["a"]) == 60
    assert figures["errors"] == {}
    if even:
        assert figures["seconds"] >= 60 / 200
