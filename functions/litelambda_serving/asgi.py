"""The service as an ASGI application, for servers that have many requests at once: `litelambda_serving.asgi:app`.

    python -m litelambda_serving.asgi            # uvicorn on $PORT, as containers are started
    uvicorn litelambda_serving.asgi:app          # the same, with uvicorn's own options

Its environment and its answers are those of the function, whose composition root, `predict`, it asks; the function
never imports it. A request waits for its turn without a thread, then has one: while the runtime computes, which needs
no GIL, others are read and written. One that is known to take less than changing threads does is answered in the event
loop's own.

Knows ASGI, and neither events nor protocols. The caller is anonymous to an access policy.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import traceback
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from threading import Lock
from time import monotonic
from urllib.parse import quote

from litelambda_serving.durations import Durations
from litelambda_serving.errors import BusyError, LateError, PayloadTooLargeError, ServingError, SettingsError
from litelambda_serving.http import MAX_BODY_BYTES, StreamedResponse, check_body_bytes
from litelambda_serving.server_settings import ServerSettings
from litelambda_serving.turns import Turns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from types import ModuleType
    from typing import Any

    from litelambda_serving.http import Response

    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["Application", "SharingLoop", "app"]

_PROBES = ("/", "", "/healthz", "/v2/health/live", "/v2/health/ready", "/ping")
"""Answered at once: whoever asks whether the server is alive must not wait behind predictions."""

_SPARE = 1  # threads that the requests for one model leave to others
_SWITCH_SECONDS = 0.0005  # the event loop asks for the GIL several times a request; it would wait for 5 ms each time
_DROPPED_BYTES = 4 * MAX_BODY_BYTES  # of a body that is too large, so that its sender reads the answer


class Application:
    """The ASGI application."""

    def __init__(self, predict: ModuleType | None = None) -> None:
        """Make the application.

        Args:
            predict: the composition root, imported; None imports it when the server starts, with the environment of
                that moment.
        """
        self._predict = predict
        self._loading = Lock()
        self._service: _Service | None = None

    def load(self) -> _Service:
        """Load what the environment names, once; else the server's start does so, or the first request.

        Raises:
            ServingError: a setting is impossible, or a model cannot be loaded.
        """
        with self._loading:
            if self._service is None:
                self._service = _Service(self._predict)
            return self._service

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Take one connection's events: the server's lifespan, or a request."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        elif scope["type"] == "http":
            service = self._service
            if service is None:
                service = await asyncio.to_thread(self.load)
            await service.answer(scope, receive, send)
        else:
            await send({"type": "websocket.close"})

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        try:
            service = await asyncio.to_thread(self.load)
        except Exception as error:  # noqa: BLE001 - a server takes what is raised here for an application without lifespan
            if not isinstance(error, ServingError):
                traceback.print_exc()
            await send({"type": "lifespan.startup.failed", "message": f"{type(error).__name__}: {error}"})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await asyncio.to_thread(service.close)
        await send({"type": "lifespan.shutdown.complete"})


class _Service:
    """The handlers, and the threads that run them."""

    def __init__(self, predict: ModuleType | None) -> None:
        """Load the models that the environment names.

        Raises:
            ServingError: a setting is impossible, or a model cannot be loaded.
        """
        settings = ServerSettings.from_environment(os.environ)
        per_model = settings.concurrency
        self._seconds = settings.request_seconds
        self._routes = settings.routes
        self._turns = Turns(per_model + _SPARE, per_model, settings.queue_limit)
        sys.setswitchinterval(_SWITCH_SECONDS)
        self._predict = predict or _import_predict()
        self._predict.run_concurrently(per_model)
        self._threads = ThreadPoolExecutor(per_model + _SPARE, "predict")
        self._durations = Durations(self._predict)
        self._long: Counter[str] = Counter()  # requests in threads that are not known to be short, by model
        self._afterwards: asyncio.Future[Any] | None = None

    def close(self) -> None:
        """Wait for the requests that run, and write what was to be written after them."""
        self._threads.shutdown()
        if self._predict.after_response:
            self._predict.after_response()

    async def answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request."""
        deadline = monotonic() + self._seconds
        request_id = os.urandom(16).hex()
        headers = _headers(scope)
        try:
            async with asyncio.timeout(self._seconds):
                body = await _read(receive, headers)
        except TimeoutError:
            response = self._predict.refuse(LateError("the request's body did not arrive in time"), request_id)
        except PayloadTooLargeError as error:
            response = self._predict.refuse(error, request_id)
            response.headers = {**response.headers, "Connection": "close"}
            await _send(response, send, more=True)
            await _drop(receive)
            await send({"type": "http.response.body"})
            return
        else:
            if body is None:
                return
            path = (scope.get("raw_path") or quote(scope["path"]).encode()).decode("latin-1").partition("?")[0]
            path = self._routes.get(path, path)
            response = await self._respond(scope["method"], path, headers, body, deadline, request_id)
        await _send(response, send, more=isinstance(response, StreamedResponse))
        if isinstance(response, StreamedResponse):
            await self._stream(response, send)
        self._write_afterwards()

    async def _stream(self, response: StreamedResponse, send: Send) -> None:
        """Send a body part by part; what a part raises breaks the connection off, as it comes too late for a status."""
        loop = asyncio.get_running_loop()
        while (chunk := await loop.run_in_executor(self._threads, next, response.chunks, None)) is not None:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
        await send({"type": "http.response.body"})

    async def _respond(
        self, method: str, path: str, headers: dict[str, str], body: bytes, deadline: float, request_id: str
    ) -> Response:
        respond: Callable[[], Response] = partial(
            self._predict.respond, method, path, headers, body, deadline, request_id
        )
        if path in _PROBES:
            return await asyncio.to_thread(respond)
        model = _model_of(path)
        try:
            await self._turns.wait(model, deadline)
        except BusyError as error:
            return self._refused(error, request_id)
        is_short = self._durations.is_short(method, path, headers, body)
        if is_short and model and model not in self._long:  # it cannot have to wait for a compiled copy of the model
            try:
                return self._durations.measure(path, respond, inline=True)
            finally:
                self._turns.end(model)
        measured = partial(self._durations.measure, path, respond, inline=False)
        run = asyncio.get_running_loop().run_in_executor(self._threads, measured)
        long = Counter(() if is_short else (model,))
        self._long += long
        run.add_done_callback(lambda _: self._end(model, long))  # however long it takes, and whoever waits for it
        done, _ = await asyncio.wait([run], timeout=deadline - monotonic())
        if not done:
            return self._refused(LateError(f"no answer within {self._seconds} s: send fewer rows"), request_id)
        return run.result()

    def _end(self, model: str, long: Counter[str]) -> None:
        self._turns.end(model)
        self._long -= long

    def _refused(self, error: ServingError, request_id: str) -> Response:
        response: Response = self._predict.refuse(error, request_id)
        return response

    def _write_afterwards(self) -> None:
        """What a function does between an answer and the next request, in one thread at a time."""
        if self._predict.after_response and (self._afterwards is None or self._afterwards.done()):
            self._afterwards = asyncio.ensure_future(asyncio.to_thread(self._predict.after_response))


def _import_predict() -> ModuleType:
    """Import the composition root, which loads models; it is next to this package, or where wheels have it."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    spec = PathFinder.find_spec("predict", [root, os.path.join(root, "litelambda", "project", "functions")])
    if spec is None or spec.loader is None:
        raise SettingsError(f"{root} has no predict.py: install or package litelambda as a whole")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _headers(scope: Message) -> dict[str, str]:
    """Headers by lower-cased name, as API Gateway hands them on: joined where there are several of one name."""
    headers: dict[str, str] = {}
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        headers[name] = f"{headers[name]},{value}" if name in headers else value
    return headers


def _model_of(path: str) -> str:
    """The model that a path names, whatever it is; "" without one."""
    parts = path.split("/", 4)
    return parts[3].partition(":")[0] if len(parts) > 3 and parts[2] == "models" else ""


async def _read(receive: Receive, headers: dict[str, str]) -> bytes | None:
    """Read a request's body; None if its client has gone.

    Raises:
        PayloadTooLargeError: as soon as it is known to be over the limit.
    """
    announced = headers.get("content-length", "")
    if announced.isdecimal():
        check_body_bytes(int(announced))
    body = b""
    chunks: list[bytes] = []
    length = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body = message.get("body", b"")
        length += len(body)
        check_body_bytes(length)
        if not message.get("more_body"):
            return b"".join([*chunks, body]) if chunks else body
        chunks.append(body)


async def _drop(receive: Receive) -> None:
    """Read on for a moment: a client that is cut off while it sends does not see the answer."""
    length = 0
    try:
        async with asyncio.timeout(1):
            while length < _DROPPED_BYTES:
                message = await receive()
                length += len(message.get("body", b""))
                if not message.get("more_body"):
                    return
    except TimeoutError:
        return


async def _send(response: Response, send: Send, *, more: bool) -> None:
    """Send a response: all of it, or what comes before `more`."""
    body = response.body.encode() if isinstance(response.body, str) else response.body
    headers = {"content-type": response.content_type, **{name.lower(): each for name, each in response.headers.items()}}
    if response.status not in (204, 304) and not isinstance(response, StreamedResponse):
        headers.setdefault("content-length", str(len(body)))
    raw = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": response.status, "headers": raw})
    await send({"type": "http.response.body", "body": body, "more_body": more})


class SharingLoop(asyncio.SelectorEventLoop):
    """An event loop that accepts one connection each time it looks, and leaves the others to processes that are idle.

    asyncio's own accepts all that wait, so that of a burst of connections one process would have every one.
    """

    def _accept_connection(self, *arguments: Any) -> None:
        protocol_factory, listener, context, server, _backlog, *timeouts = arguments
        super()._accept_connection(protocol_factory, listener, context, server, 1, *timeouts)  # type: ignore[misc]


def main() -> None:
    """Serve on `PORT` until SIGTERM or SIGINT, which let the requests at hand end."""
    import uvicorn

    settings = ServerSettings.from_environment(os.environ)
    with socket.create_server(("", settings.port), backlog=2048) as listener:
        # asyncio turns Nagle's algorithm off only for sockets that it has opened itself: a body behind its head would
        # wait 40 ms for the client's delayed acknowledgment. Accepted connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        application = "litelambda_serving.asgi:app"
        options: dict[str, Any] = {"log_level": "warning", "lifespan": "on", "ws": "none", "server_header": False}
        if settings.processes > 1:
            loop = "litelambda_serving.asgi:SharingLoop"
            uvicorn.run(application, fd=listener.fileno(), workers=settings.processes, loop=loop, **options)
            return
        server = uvicorn.Server(uvicorn.Config(application, **options))
        with suppress(KeyboardInterrupt):
            server.run(sockets=[listener])  # which closes it when it is to end: new connections do not wait in vain
        if not server.started:
            sys.exit(1)


app = Application()

if __name__ == "__main__":
    main()
