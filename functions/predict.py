"""The API Gateway handler, `predict.handler`: composition root and INIT.

Importing this module is INIT. The artifact's fetch starts first, in native code, and everything else loads while it
is under way; a model that cannot be loaded fails INIT with its reason in the log.
"""

from __future__ import annotations

import os
import time
from math import inf

_started = time.perf_counter()

from litelambda_serving.artifact import fetch_artifact  # noqa: E402 - INIT is timed from the first line
from litelambda_serving.background import Background  # noqa: E402
from litelambda_serving.settings import Settings  # noqa: E402
from litelambda_serving.store import open_store  # noqa: E402

_settings = Settings.from_environment(os.environ)
_store = open_store(_settings.model_store)
if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") == "snap-start":
    from litelambda_serving.store.snapstart import register

    register(_store)
_fetch = (
    Background(fetch_artifact, _store, _settings.model_name, _settings.model_version, _settings.manifest_sha256)
    if _settings.model_name
    else None
)
_fetch_started = time.perf_counter()

# From here on the fetch is under way: what is imported now costs nothing while the network is slower.
from litelambda_serving import http, litert  # noqa: E402 - as above
from litelambda_serving.errors import (  # noqa: E402 - as above
    AccessDeniedError,
    ArtifactError,
    BusyError,
    LateError,
    RequestError,
    ServingError,
)
from litelambda_serving.http import (  # noqa: E402 - as above
    MAX_RESPONSE_BYTES,
    Request,
    StreamedResponse,
    add_headers,
    request_from_event,
    request_of,
    response_to_event,
    status_of,
)
from litelambda_serving.models import ModelRepository  # noqa: E402 - as above
from litelambda_serving.observability import Log, trace_context  # noqa: E402
from litelambda_serving.router import cors_headers, error_response, route, without_body  # noqa: E402

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, TypeVar

    from litelambda_serving.http import Response

    Answer = TypeVar("Answer")

litert.load_library()
_runtime_loaded = _loaded = time.perf_counter()
_spans = {
    "settings_and_store_ms": round((_fetch_started - _started) * 1000, 3),
    "runtime_ms": round((_runtime_loaded - _fetch_started) * 1000, 3),
}

_log = Log(_settings.log_level, _settings.metrics_namespace, os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local"))
_custom_code = None
if _settings.custom_code:
    from litelambda_serving.custom_code import CustomCode

    _custom_code = CustomCode(_settings.custom_code)
    _loaded = time.perf_counter()
    _spans["custom_code_ms"] = round((_loaded - _runtime_loaded) * 1000, 3)
_repository = ModelRepository(
    _store,
    _settings.num_threads,
    memory_bytes=_settings.model_memory_bytes,
    refresh_seconds=_settings.alias_refresh_seconds,
    pinned=_settings.pinned,
    controllable=_settings.model_control,
    warn=lambda message: _log.write("WARNING", message),
)
_repository.custom_code = _custom_code
_policy = None
if _settings.access_policy:
    from litelambda_serving.access import Policy

    _policy = Policy.read(_settings.access_policy)
_recorder = None
if os.environ.get("CAPTURE_STORE") or os.environ.get("DRIFT_WINDOW"):
    from litelambda_serving.recorder import Recorder

    _recorder = Recorder(os.environ, _repository, _log)
if _fetch is not None:
    try:
        _artifact = _fetch.result()
    except ArtifactError as _error:
        from litelambda_serving import audit

        audit.refused(_settings.model_name, _settings.model_version, _error)
        raise
    _fetched = time.perf_counter()
    _repository.add(_artifact, _settings.model_version)
    _spans["waited_for_store_ms"] = round((_fetched - _loaded) * 1000, 3)
    _spans["model_ms"] = round((time.perf_counter() - _fetched) * 1000, 3)
_spans["total_ms"] = round((time.perf_counter() - _started) * 1000, 3)
_log.write("DEBUG", "init", **_spans)

_tracer = None
if _settings.tracing and os.environ.get("AWS_XRAY_DAEMON_ADDRESS"):
    from litelambda_serving.xray import Tracer

    _tracer = Tracer(os.environ["AWS_XRAY_DAEMON_ADDRESS"], lambda message: _log.write("WARNING", message))

read_event = http.read_event
"""For the lean bootstrap: what makes an event of its JSON."""

after_response = _recorder and _recorder.after_response
"""For the lean bootstrap: what to call when a caller has the answer; None for nothing."""

only_computes = not (_settings.custom_code or _settings.request_store)
"""For `litelambda_serving.asgi`: whether a prediction of a model in memory waits for nothing from outside."""

_ROOM_SECONDS = 0.5  # of a request's time, kept for the answer
_cold = True
# A snapshot's INIT was before the first request, and not for it.
_init = _spans if os.environ.get("AWS_LAMBDA_INITIALIZATION_TYPE") != "snap-start" else None


def handler(event: Any, context: Any) -> dict[str, Any] | Iterator[bytes]:
    """Answer one HTTP event.

    Args:
        event: see `litelambda_serving.http.request_from_event`.
        context: Lambda's, or the lean bootstrap's.

    Returns:
        A response in the form that the event's sender expects; errors too, never an exception. For one that invokes
        with response streaming, its parts.
    """
    limit, request_id = _most_bytes(event, context), getattr(context, "aws_request_id", "")
    return _answer(
        lambda: _set_up(request_from_event(event, _deadline(context), _settings.base_path, _policy), request_id, limit),
        lambda response, observe: _deliver(response, event, limit, request_id, observe),
        request_id,
        os.environ.get("_X_AMZN_TRACE_ID", ""),
    )


def respond(method: str, path: str, headers: dict[str, str], body: bytes, deadline: float, request_id: str) -> Response:
    """Answer one request that came over HTTP itself, for `litelambda_serving.asgi`; any thread may ask.

    Args:
        method: HTTP method.
        path: percent-encoded.
        headers: by lower-cased name.
        body: as it came.
        deadline: `time.monotonic()` at which an answer comes too late.
        request_id: for messages and the log.

    Returns:
        What `handler` puts into the form of an event; errors too, never an exception.
    """
    return _answer(
        lambda: _set_up(
            request_of(method, path, headers, body, deadline - _ROOM_SECONDS, _settings.base_path, _policy),
            request_id,
            inf,
        ),
        lambda response, observe: _sent(response, request_id, observe),
        request_id,
        headers.get("x-amzn-trace-id", ""),
    )


def refuse(error: ServingError, request_id: str) -> Response:
    """The response to a request that the server does not hand on."""

    def read() -> Request:
        raise error

    return _answer(read, _plain, request_id, "")


def num_changes() -> int:
    """How often models were loaded or dropped: a request after that may have to load one again."""
    return _repository.num_changes


def run_concurrently(copies: int) -> None:
    """From here on, let each model run so many times at once; see `ModelRepository.run_concurrently`."""
    _repository.run_concurrently(copies)


def _answer(
    read: Callable[[], Request], write: Callable[[Response, Callable[[], None]], Answer], request_id: str, xray: str
) -> Answer:
    """Read a request, route it, and write its response, or that of an error."""
    global _cold
    started = time.perf_counter_ns()
    cold, _cold = _cold, False
    method, traceparent = "-", ""
    if _recorder is not None:
        _recorder.before_request()
    try:
        request = read()
        method, traceparent = request.method, request.headers.get("traceparent", "")
        response = route(request, _repository, page=_settings.page)
    except AccessDeniedError as error:
        from litelambda_serving import audit

        audit.record(error.action or "any", "refused", actor=error.caller, model=error.model, reason="ACCESS_POLICY")
        response = error_response(error, request_id)
    except (RequestError, BusyError, LateError) as error:
        response = error_response(error, request_id)
    except ServingError as error:
        _log.write("ERROR", str(error), error=type(error).__name__, request_id=request_id)
        response = error_response(error, request_id)
    except Exception as error:  # noqa: BLE001 - the wire never sees a stack trace, the log does
        import traceback

        _log.write("ERROR", traceback.format_exc(), error=type(error).__name__, request_id=request_id)
        response = error_response(error, request_id)
    if _settings.page:
        add_headers(response, {"Server-Timing": f"handler;dur={(time.perf_counter_ns() - started) / 1e6:.3f}"})
    if method == "HEAD":
        without_body(response)
    if _settings.cors_allow_origin:
        add_headers(response, cors_headers(_settings.cors_allow_origin))
    if _recorder is not None and response.status == 200:
        _recorder.answered(request, response, request_id)
    return write(response, lambda: _observe(response, method, traceparent, xray, started, request_id, cold))


def _set_up(request: Request, request_id: str, limit: float = MAX_RESPONSE_BYTES) -> Request:
    """A request with what the settings allow it."""
    request.request_id = request_id
    request.max_response_bytes = limit
    request.request_store = _settings.request_store
    return request


def _sent(response: Response, request_id: str, observe: Callable[[], None]) -> Response:
    """The response as it is; `observe` is called when it is made."""
    if not isinstance(response, StreamedResponse):
        return _plain(response, observe)
    from litelambda_serving.streaming.integration import observed

    response.chunks = observed(response, _ended(response, request_id, observe))
    return response


def _plain(response: Response, observe: Callable[[], None]) -> Response:
    observe()
    return response


def _deliver(
    response: Response, event: Any, limit: int, request_id: str, observe: Callable[[], None]
) -> dict[str, Any] | Iterator[bytes]:
    """The response as the event's sender takes it; `observe` is called when it is made."""
    if limit > MAX_RESPONSE_BYTES:
        return _in_parts(response, request_id, observe)
    answer = response_to_event(response, event)
    observe()
    return answer


def _most_bytes(event: Any, context: Any) -> int:
    """Of an answer: more where the function is invoked with response streaming, and its client can answer so."""
    if not _settings.response_streaming:
        return MAX_RESPONSE_BYTES
    from litelambda_serving.streaming.integration import MAX_STREAM_BYTES, is_streamed

    is_possible = getattr(context, "streams", False) and is_streamed(event, _settings.response_streaming)
    return MAX_STREAM_BYTES if is_possible else MAX_RESPONSE_BYTES


def _in_parts(response: Response, request_id: str, observe: Callable[[], None]) -> Iterator[bytes]:
    """The response as an iterator, which the lean bootstrap sends while it is made."""
    from litelambda_serving.streaming.integration import integrated

    return integrated(response, _ended(response, request_id, observe), request_id)


def _ended(response: Response, request_id: str, observe: Callable[[], None]) -> Callable[[Exception | None], None]:
    """What is to be called when a response is made, or with what ended it early."""

    def ended(error: Exception | None) -> None:
        if error is not None:
            import traceback

            response.status = status_of(error)
            level = "ERROR" if response.status >= 500 else "WARNING"
            text = "".join(traceback.format_exception(error)) if level == "ERROR" else str(error)
            _log.write(level, text, error=type(error).__name__, request_id=request_id)
        observe()

    return ended


def _observe(
    response: Response, method: str, traceparent: str, xray: str, started: int, request_id: str, cold: bool
) -> None:
    """Write the request's line, and send its trace where traces are sent."""
    trace, init = trace_context(traceparent, xray), _init if cold else None
    _log.request(response, method, started, request_id, init, trace, cold_start=cold)
    if _tracer is not None:
        _tracer.send(xray, response, started, init, trace)


def _deadline(context: Any) -> float:
    """When this invocation's answer comes too late, with room left to say so."""
    remaining = getattr(context, "get_remaining_time_in_millis", None)
    return time.monotonic() + remaining() / 1000 - _ROOM_SECONDS if remaining else inf
