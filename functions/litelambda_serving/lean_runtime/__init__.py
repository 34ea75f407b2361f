"""A Lambda runtime client on one kept-alive socket: what the stock client does for a handler, without its imports.

Half of the stock runtime's INIT is its client's own: logging, json, decimal, an HTTP library. This one speaks the
Runtime API (version 2018-06-01) directly. `lean-bootstrap` starts it; it does not know what the handler does.

Source: docs.aws.amazon.com/lambda/latest/dg/runtimes-api.html; error and log forms as awslambdaric writes them.
"""

from __future__ import annotations

import gc
import os
import sys
import time
from _socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket

from litelambda_serving.errors import LeanRuntimeError
from litelambda_serving.json_codec import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, NoReturn

    Handler = Callable[[Any, "Context"], Any]
    AfterResponse = Callable[[], object]
    ReadEvent = Callable[[bytes], Any]

__all__ = ["Context", "RuntimeClient", "RuntimeClientError", "main", "serve"]

_BASE = "/2018-06-01/runtime"
_RECEIVE_BYTES = 64 * 1024  # a buffer that malloc keeps: a larger one would be mapped again for every call
_TOO_LARGE = 413
_CLIENT_CONTEXT, _IDENTITY = "lambda-runtime-client-context", "lambda-runtime-cognito-identity"


class RuntimeClientError(Exception):
    """The Runtime API answered in a way after which the environment must end."""


class RuntimeClient:
    """Calls to the Runtime API, one after the other."""

    def __init__(self, address: str) -> None:
        """Remember the API's address; the connection is made with the first call.

        Args:
            address: `host:port`, as in AWS_LAMBDA_RUNTIME_API.
        """
        host, _, port = address.partition(":")
        self.peer = (host, int(port or 80))
        self._host = f" HTTP/1.1\r\nHost: {address}\r\n".encode()
        self._socket: socket | None = None
        self._echo = b""

    def next(self) -> tuple[Mapping[str, str], bytes]:
        """Wait for an invocation; return its headers by lower-cased name, and its payload."""
        status, headers, body = self._call(b"GET " + _BASE.encode() + b"/invocation/next" + self._host + b"\r\n")
        if status != 200:
            raise RuntimeClientError(f"the Runtime API answered {status} to next: {body[:200]!r}")
        invocation_id = headers.get("lambda-runtime-invocation-id")
        self._echo = f"Lambda-Runtime-Invocation-Id: {invocation_id}\r\n".encode() if invocation_id else b""
        return headers, body

    def respond(self, request_id: str, payload: bytes) -> None:
        """Post an invocation's result; one that is too large has been refused and reported by the API itself."""
        self._post(f"/invocation/{request_id}/response", payload)

    def fail(self, request_id: str, error: Mapping[str, Any]) -> None:
        """Post an invocation's error."""
        self._post(f"/invocation/{request_id}/error", dumps(error).encode(), error["errorType"])

    def fail_init(self, error: Mapping[str, Any]) -> None:
        """Post that INIT failed."""
        self._post("/init/error", dumps(error).encode(), error["errorType"])

    def head_of(self, path: str, content_type: bytes = b"application/json") -> list[bytes]:
        """The first lines of a POST."""
        return [f"POST {_BASE}{path}".encode(), self._host, b"Content-Type: " + content_type + b"\r\n", self._echo]

    @staticmethod
    def shown_type(error_type: str) -> bytes:
        """An error's type as a header: a class may have any name, and what is not printable ASCII could end one."""
        return "".join(letter if " " <= letter <= "~" else "?" for letter in error_type).encode()

    def _post(self, path: str, payload: bytes, error_type: str = "") -> None:
        kind = b"Lambda-Runtime-Function-Error-Type: %b\r\n" % self.shown_type(error_type) if error_type else b""
        head = b"".join([*self.head_of(path), kind, b"Content-Length: %d\r\n\r\n" % len(payload)])
        status, _, body = self._call(head, payload)
        if status not in (202, _TOO_LARGE):
            raise RuntimeClientError(f"the Runtime API answered {status} to {path}: {body[:200]!r}")

    def _call(self, head: bytes, payload: bytes = b"") -> tuple[int, Mapping[str, str], bytes]:
        """Send one request, again on a new connection when the kept one turns out to be closed."""
        if self._socket is not None:
            try:
                return self._exchange(self._socket, head, payload)
            except ConnectionError:
                self._socket.close()
        self._socket = socket(AF_INET, SOCK_STREAM)
        self._socket.connect(self.peer)
        self._socket.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
        try:
            return self._exchange(self._socket, head, payload)
        except _ClosedError as error:
            raise RuntimeClientError("the Runtime API closed the connection without an answer") from error

    def _exchange(self, connection: socket, head: bytes, payload: bytes) -> tuple[int, Mapping[str, str], bytes]:
        if len(payload) < _RECEIVE_BYTES:
            connection.sendall(head + payload)
        else:
            connection.sendall(head)
            connection.sendall(payload)
        return self.receive(connection)

    def receive(self, connection: socket) -> tuple[int, Mapping[str, str], bytes]:
        """Read one answer: its status, its headers by lower-cased name, its body."""
        received = _receive_until(connection, b"", b"\r\n\r\n")
        text, _, rest = received.partition(b"\r\n\r\n")
        lines = text.decode("utf-8", "replace").split("\r\n")
        headers = {}
        for line in lines[1:]:
            name, _, value = line.partition(":")
            headers[name.lower()] = value.strip()
        if headers.get("transfer-encoding", "").lower() == "chunked":
            body = _receive_chunks(connection, rest)
        else:
            body = _receive_exactly(connection, rest, int(headers.get("content-length", "0")))
        if headers.get("connection", "").lower() == "close":
            connection.close()
            if connection is self._socket:
                self._socket = None
        return int(lines[0].split(" ", 2)[1]), headers, body


class _ClosedError(ConnectionError):
    """The other side closed before a whole answer."""


def _receive(connection: socket) -> bytes:
    data = connection.recv(_RECEIVE_BYTES)
    if not data:
        raise _ClosedError
    return data


def _receive_until(connection: socket, data: bytes, mark: bytes) -> bytes:
    while mark not in data:
        data += _receive(connection)
    return data


def _receive_exactly(connection: socket, start: bytes, length: int) -> bytes:
    if len(start) >= length:
        return start[:length]
    body = bytearray(length)
    body[: len(start)] = start
    view, position = memoryview(body), len(start)
    while position < length:
        count = connection.recv_into(view[position:])
        if not count:
            raise _ClosedError
        position += count
    return bytes(body)


def _receive_chunks(connection: socket, data: bytes) -> bytes:
    chunks: list[bytes] = []
    while True:
        data = _receive_until(connection, data, b"\r\n")
        line, _, data = data.partition(b"\r\n")
        length = int(line.partition(b";")[0], 16)
        if len(data) < length + 2:
            data = _receive_exactly(connection, data, length + 2)
        if not length:
            return b"".join(chunks)  # there are no trailers in this API
        chunks.append(data[:length])
        data = data[length + 2 :]


class _NoIdentity:
    """The identity of a caller that Cognito does not know."""

    cognito_identity_id = None
    cognito_identity_pool_id = None


class Context:
    """What a handler may know of its invocation, by the names of AWS's own context object.

    Attributes:
        aws_request_id, invoked_function_arn, tenant_id: of this invocation.
        function_name, function_version, memory_limit_in_mb, log_group_name, log_stream_name: of the environment.
        streams: that an iterator of bytes is taken for an answer: the stock client has no such thing.
        client_context: what a mobile SDK sent (`client`, `custom`, `env`), or None.
        identity: of Cognito (`cognito_identity_id`, `cognito_identity_pool_id`), each None where there is none.
    """

    streams = True

    def __init__(self, headers: Mapping[str, str]) -> None:
        environment = os.environ
        self.aws_request_id = headers["lambda-runtime-aws-request-id"]
        self.invoked_function_arn = headers.get("lambda-runtime-invoked-function-arn")
        self.tenant_id = headers.get("lambda-runtime-aws-tenant-id")
        self.function_name = environment.get("AWS_LAMBDA_FUNCTION_NAME")
        self.function_version = environment.get("AWS_LAMBDA_FUNCTION_VERSION")
        self.memory_limit_in_mb = environment.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE")
        self.log_group_name = environment.get("AWS_LAMBDA_LOG_GROUP_NAME")
        self.log_stream_name = environment.get("AWS_LAMBDA_LOG_STREAM_NAME")
        self.client_context = None
        self.identity: object = _NoIdentity
        client_context, identity = headers.get(_CLIENT_CONTEXT), headers.get(_IDENTITY)
        if client_context or identity:
            from litelambda_serving.lean_runtime.callers import read_client_context, read_identity

            self.client_context = read_client_context(client_context or "null")
            self.identity = read_identity(identity or "{}")
        self._deadline_ms = int(headers.get("lambda-runtime-deadline-ms", "0"))

    def get_remaining_time_in_millis(self) -> int:
        """Milliseconds until the function is stopped, 0 when that time has come."""
        return max(0, self._deadline_ms - int(time.time() * 1000))


def serve(
    client: RuntimeClient,
    handler: Handler,
    after_response: AfterResponse | None = None,
    read_event: ReadEvent = loads,
) -> NoReturn:
    """Answer invocations for as long as the environment lives.

    Args:
        client: of the Runtime API.
        handler: answers an invocation.
        after_response: called when the caller has the answer, before the environment waits, or is frozen.
        read_event: makes an event of its JSON.

    Raises:
        RuntimeClientError: the Runtime API is beyond talking to.
    """
    while True:
        headers, payload = client.next()
        request_id = headers["lambda-runtime-aws-request-id"]
        trace_id = headers.get("lambda-runtime-trace-id")
        if trace_id:
            os.environ["_X_AMZN_TRACE_ID"] = trace_id
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
        try:
            answer = _answer(handler, headers, payload, read_event)
        except Exception as error:  # noqa: BLE001 - a handler's failure is the invocation's, not the loop's
            from litelambda_serving.lean_runtime.errors import describe, log

            described = describe(error, request_id)
            log(described)
            _flush()
            client.fail(request_id, described)
        else:
            _flush()
            if type(answer) is bytes:
                client.respond(request_id, answer)
            else:
                answer.send(client, request_id)
            if after_response is not None:
                after_response()


def _flush() -> None:
    """Flush the output of an invocation before the next one; the handler may have closed a stream."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            continue


def _answer(handler: Handler, headers: Mapping[str, str], payload: bytes, read_event: ReadEvent) -> Any:
    """What the handler answers: as JSON, or as a `Stream` where it is an iterator, of bytes."""
    context = Context(headers)
    try:
        event = read_event(payload)
    except ValueError as error:
        raise LeanRuntimeError("Runtime.UnmarshalError", f"Unable to unmarshal input: {error}") from error
    result = handler(event, context)
    if type(result) is not dict and hasattr(result, "__next__"):
        from litelambda_serving.lean_runtime.stream import Stream

        return Stream(result)
    try:
        return dumps(result).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise LeanRuntimeError("Runtime.MarshalError", f"Unable to marshal response: {error}") from error


def main() -> None:
    """Load the handler that `_HANDLER` names, then serve; a handler that cannot be loaded fails INIT."""
    gc.disable()  # INIT makes no garbage worth a collector's time
    # Line by line for as long as the environment lives, and able to write any text.
    sys.stdout = open(1, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)  # noqa: SIM115 - see above
    client = RuntimeClient(os.environ["AWS_LAMBDA_RUNTIME_API"])
    try:
        handler, after_response, read_event = _load_handler(os.environ["_HANDLER"])
    except Exception as error:  # noqa: BLE001 - INIT has failed, for any reason
        from litelambda_serving.lean_runtime.errors import describe, log

        described = describe(error)
        log(described)
        client.fail_init(described)
        sys.exit(1)
    gc.freeze()
    gc.enable()
    serve(client, handler, after_response, read_event)


def _load_handler(name: str) -> tuple[Handler, AfterResponse | None, ReadEvent]:
    """The handler, what its module wants to be called after a response, and what it reads its events with."""
    module_name, dot, function_name = name.rpartition(".")
    if not dot:
        raise LeanRuntimeError("Runtime.MalformedHandlerName", f"Bad handler '{name}': expected module.function")
    try:
        dotted = module_name.replace("/", ".")
        __import__(dotted)
    except ImportError as error:
        raise LeanRuntimeError(
            "Runtime.ImportModuleError", f"Unable to import module '{module_name}': {error}"
        ) from error
    except SyntaxError as error:
        raise LeanRuntimeError(
            "Runtime.UserCodeSyntaxError", f"Syntax error in module '{module_name}': {error}"
        ) from error
    try:
        handler: Handler = getattr(sys.modules[dotted], function_name)
    except AttributeError as error:
        message = f"Handler '{function_name}' missing on module '{module_name}'"
        raise LeanRuntimeError("Runtime.HandlerNotFound", message) from error
    module = sys.modules[dotted]
    return handler, getattr(module, "after_response", None), getattr(module, "read_event", loads)
