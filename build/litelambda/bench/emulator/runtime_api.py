"""A Lambda Runtime API on loopback for one execution environment, exact enough to time it.

It is served by the thread that asks: `wait_ready` and `invoke` read the runtime's requests themselves, so that no
hand-over between threads is in a measured time. Knows nothing of what runs at the other end: `awslambdaric`, a lean
loop, anything that speaks version 2018-06-01. Not thread safe: one caller at a time, one runtime per instance.
"""

from __future__ import annotations

import json
import selectors
import socket
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from litelambda.bench.emulator.http1 import Connection, ProtocolError, Request
from litelambda.common.errors import BenchError

FUNCTION_ARN = "arn:aws:lambda:eu-west-1:123456789012:function:bench"
TRACE_ID = "Root=1-5759e988-bd862e3fe1be46a994272793;Sampled=0"
MAX_RESPONSE_BYTES = 6_291_556
MAX_STREAM_BYTES = 200 * 1024 * 1024
_PREFIX = "/2018-06-01/runtime/"
_LOOK_EVERY_S = 0.1
_JSON = {"content-type": "application/json"}


@dataclass(frozen=True)
class Invocation:
    """One answered invoke: its result or its error, and the round trip from event sent to answer received.

    Attributes:
        headers: of the answer, names in lower case.
        chunks: of an answer that was streamed: how long after the event each was there, in ms, and what it was.
        trailers: what followed them.
    """

    request_id: str
    result: bytes | None
    error: dict[str, Any] | None
    ms: float
    headers: Mapping[str, str] = field(default_factory=dict)
    chunks: Sequence[tuple[float, bytes]] = ()
    trailers: Mapping[str, str] = field(default_factory=dict)

    def json(self) -> Any:
        """The handler's return value.

        Raises:
            BenchError: the handler failed; the message has its error.
        """
        if self.result is None:
            error = self.error or {}
            raise BenchError(f"the handler failed: {error.get('errorType')}: {error.get('errorMessage')}")
        return json.loads(self.result)


class RuntimeApi:
    """The server that a function's runtime polls for events; a context manager that closes it.

    Args:
        alive: tells whether the runtime's process still runs; asked while waiting for it.
        function_arn: the ARN handed to the handler's context.
        keep_alive: whether a connection outlives an answer; without, it is closed unannounced, as after a freeze.
    """

    def __init__(
        self, *, alive: Callable[[], bool] = lambda: True, function_arn: str = FUNCTION_ARN, keep_alive: bool = True
    ) -> None:
        self.init_error: dict[str, Any] | None = None
        self.ready_at: float | None = None
        self._alive = alive
        self._function_arn = function_arn
        self._keep_alive = keep_alive
        self._connections: list[Connection] = []
        self._parked: Connection | None = None
        self._in_flight = ""
        self._answer: tuple[str, Request, float] | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=16)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)

    @property
    def address(self) -> str:
        """HOST:PORT, the value of `AWS_LAMBDA_RUNTIME_API`."""
        host, port = self._listener.getsockname()
        return f"{host}:{port}"

    def wait_ready(self, timeout_s: float = 60.0) -> float:
        """Wait until the runtime asks for its first event, which is when INIT ends.

        Returns:
            When that request had arrived, by `time.perf_counter`.

        Raises:
            BenchError: the runtime reported an INIT error, died, or was not ready in time.
        """
        deadline = time.monotonic() + timeout_s
        while self._parked is None or self.ready_at is None:
            self._serve_one(deadline, "ask for an event")
            if self.init_error is not None:
                error_type, message = self.init_error.get("errorType"), self.init_error.get("errorMessage")
                raise BenchError(f"INIT failed: {error_type}: {message}")
        return self.ready_at

    def invoke(
        self,
        event: object,
        *,
        timeout_s: float = 30.0,
        headers: Mapping[str, str | None] | None = None,
        chunked: bool = False,
    ) -> Invocation:
        """Hand one event to the runtime and wait for its answer.

        Args:
            event: the event; bytes are sent as they are, all else as JSON.
            timeout_s: the function's timeout: the deadline that the runtime is told.
            headers: headers of the Runtime API to add, replace, or (None) leave out.
            chunked: whether the event travels in chunks, without its length.

        Raises:
            BenchError: the runtime died or did not answer in time.
        """
        self.wait_ready(timeout_s)
        body = event if isinstance(event, bytes) else json.dumps(event).encode()
        self._in_flight = str(uuid.uuid4())
        sent = {
            **_JSON,
            "lambda-runtime-aws-request-id": self._in_flight,
            "lambda-runtime-deadline-ms": str(int((time.time() + timeout_s) * 1000)),
            "lambda-runtime-invoked-function-arn": self._function_arn,
            "lambda-runtime-trace-id": TRACE_ID,
            **(headers or {}),
        }
        present = {name: value for name, value in sent.items() if value is not None}
        deadline = time.monotonic() + timeout_s
        started = time.perf_counter()
        self._hand_over(present, body, chunked)
        while self._answer is None:
            self._serve_one(deadline, "answer")
        kind, answer, finished = self._answer
        result, error = (answer.body, None) if kind == "response" else (None, json.loads(answer.body))
        chunks = [((at - started) * 1000, data) for at, data in answer.chunks]
        ms = (finished - started) * 1000
        return Invocation(self._in_flight, result, error, ms, answer.headers, chunks, answer.trailers)

    def close(self) -> None:
        """Close every socket; a runtime that still polls sees its connection end."""
        self._selector.close()
        self._listener.close()
        for connection in self._connections:
            connection.close()

    def _hand_over(self, headers: Mapping[str, str], body: bytes, chunked: bool) -> None:
        connection, self._parked, self._answer = self._parked, None, None
        try:
            if connection is None:
                return
            if chunked:
                connection.respond_in_chunks(200, headers, body)
            else:
                connection.respond(200, headers, body)
        except OSError as error:
            raise BenchError(f"the runtime went away before it took the event: {error}") from error

    def _serve_one(self, deadline: float, what: str) -> None:
        """Wait for the runtime's next request, or for a new connection, and serve it."""
        while not (ready := self._selector.select(_LOOK_EVERY_S)):
            if not self._alive():
                raise BenchError(f"the runtime exited; it was to {what}")
            if time.monotonic() > deadline:
                raise BenchError(f"the runtime did not {what} in time")
        for key, _events in ready:
            connection: Connection | None = key.data
            if connection is None:
                accepted, _address = self._listener.accept()
                accepted.settimeout(max(deadline - time.monotonic(), _LOOK_EVERY_S))
                self._connections.append(Connection(accepted))
                self._selector.register(accepted, selectors.EVENT_READ, self._connections[-1])
            else:
                self._read(connection)

    def _read(self, connection: Connection) -> None:
        try:
            request = connection.read_request()
        except (ProtocolError, OSError) as error:
            raise BenchError(f"the runtime broke off a request: {error}") from error
        now = time.perf_counter()
        if request is not None:
            self._route(connection, request, now)
            return
        if connection is self._parked:
            self._parked = None
        self._drop(connection)

    def _drop(self, connection: Connection) -> None:
        self._selector.unregister(connection.sock)
        self._connections.remove(connection)
        connection.close()

    def _route(self, connection: Connection, request: Request, now: float) -> None:
        path = request.target.removeprefix(_PREFIX)
        if (request.method, path) == ("GET", "invocation/next"):
            self._parked = connection
            self.ready_at = self.ready_at or now
        elif (request.method, path) == ("GET", "restore/next"):
            connection.respond(200, {})
        elif request.method == "POST" and path in ("init/error", "restore/error"):
            self.init_error = json.loads(request.body)
            connection.respond(202, _JSON, b'{"status":"OK"}')
        elif request.method == "POST" and path.startswith("invocation/"):
            self._answered(connection, request, path, now)
        else:
            connection.respond(404, _JSON, b'{"errorType":"InvalidPath"}')

    def _answered(self, connection: Connection, request: Request, path: str, now: float) -> None:
        _invocation, request_id, kind = path.split("/")
        is_streamed = request.headers.get("lambda-runtime-function-response-mode") == "streaming"
        most = MAX_STREAM_BYTES if is_streamed else MAX_RESPONSE_BYTES
        if request_id != self._in_flight or self._answer is not None:
            connection.respond(400, _JSON, b'{"errorType":"InvalidRequestID"}')
        elif len(request.body) > most:
            size = len(request.body)
            message = f"Response payload size ({size} bytes) exceeded maximum allowed ({most} bytes)."
            error = {"errorMessage": message, "errorType": "Function.ResponseSizeTooLarge"}
            self._answer = ("error", replace(request, body=json.dumps(error).encode()), now)
            connection.respond(413, _JSON, b'{"errorType":"RequestEntityTooLarge"}')
        else:
            self._answer = (kind, request, now)
            connection.respond(202, _JSON, b'{"status":"OK"}')
            if not self._keep_alive:
                self._drop(connection)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()
