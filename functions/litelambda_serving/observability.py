"""One JSON line per request; that of a fault is a metric too (CloudWatch Embedded Metric Format).

No payloads, no headers, no addresses: a line says which model answered, how and how fast, and to which trace it
belongs. Written straight to stdout, which Lambda sends to CloudWatch; the logging package and powertools would cost
28 ms of INIT for the same line.
"""

from __future__ import annotations

import sys
import time

from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from litelambda_serving.http import Response

__all__ = ["METRICS", "Log", "trace_context"]

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}
_INFO = _LEVELS["INFO"]
_MAX_HEADS = 256

_NOT_IMPLEMENTED = 501
"""The status of a request for a part of a protocol that is not supported: the client's fault, not ours."""

METRICS = {"ServerError": "Count", "Drift": "None"}
"""Every metric with its unit, recorded by function: those that alarms need. All else is found by querying the log.

CloudWatch bills a metric by the hour in which it has a value: a function without faults pays for none. The function's
name has its stack's in it, so that stages do not mix.
"""

_HEX_DIGITS = frozenset("0123456789abcdef")
_NO_TRACE, _NO_SPAN, _ANY_SPAN = "0" * 32, "0" * 16, "1" * 16


def trace_context(traceparent: str, xray: str) -> dict[str, str]:
    """The fields that OpenTelemetry has for a trace in a log that is not its own: `trace_id`, `span_id`, `trace_flags`.

    Args:
        traceparent: the request's header; "" without one. One that is malformed is ignored, as its standard says.
        xray: Lambda's tracing header, which counts where the request has no `traceparent`; "" without one.

    Returns:
        The fields; none without a trace. The span is that of whoever called the function.

    Source: w3.org/TR/trace-context; docs.aws.amazon.com/xray/latest/devguide/xray-concepts.html, "Tracing header".

    >>> trace_context("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "")["span_id"]
    'b7ad6b7169203331'
    """
    if traceparent:
        fields = _read_traceparent(traceparent)
        if fields:
            return fields
    root = xray.partition("Root=1-")[2]
    if root[8:9] != "-" or root[33:34] not in (";", ""):
        return {}
    span_id = xray.partition("Parent=")[2][:16]
    return _fields(root[:8] + root[9:33], span_id, "Sampled=1" in xray)


def _read_traceparent(header: str) -> dict[str, str]:
    version, flags = header[:2], header[53:55]
    if (
        header[2:53:33] + header[52:53] != "---"
        or version == "ff"
        or not _HEX_DIGITS.issuperset(version + flags)
        or len(flags) != 2
        or (len(header) != 55 and (version == "00" or header[55] != "-"))  # a later version may have more parts
    ):
        return {}
    return _fields(header[3:35], header[36:52], int(flags, 16) & 1 == 1)


def _fields(trace_id: str, span_id: str, sampled: bool) -> dict[str, str]:
    """The fields of a trace, without a span where none is known; none at all where an identifier is not one."""
    digits = trace_id + (span_id or _ANY_SPAN)
    try:
        is_valid = len(digits) == 48 and bytes.fromhex(digits).hex() == digits  # lower case, nothing between them
    except ValueError:
        return {}
    if not is_valid or trace_id == _NO_TRACE or span_id == _NO_SPAN:
        return {}
    flags = "01" if sampled else "00"
    if not span_id:
        return {"trace_id": trace_id, "trace_flags": flags}
    return {"trace_id": trace_id, "span_id": span_id, "trace_flags": flags}


class Log:
    """Structured lines on stdout.

    Attributes:
        level: number of the lowest level that is written.
    """

    def __init__(self, level: str, metrics_namespace: str, function_name: str) -> None:
        self.level = _LEVELS[level]
        self._function_name = function_name
        self._namespace = metrics_namespace
        self._heads: dict[tuple[str, str, int, str, int], str] = {}

    def write(self, level: str, message: str, **fields: Any) -> None:
        """Write one line, unless its level is too low. Fields are anything JSON can hold."""
        if _LEVELS[level] >= self.level:
            self._emit(dumps({"level": level, "message": message, **fields}))

    def measured(
        self, message: str, model: str, version: int, metrics: Mapping[str, float], fields: Mapping[str, Any]
    ) -> None:
        """Write a line of what was measured of a version apart from any request, whatever the level.

        Args:
            message: what it is.
            model: its name.
            version: its number.
            metrics: some of `METRICS`.
            fields: of the line alone.
        """
        line = {"level": "INFO", "message": message, "Model": model, "Version": str(version), **metrics, **fields}
        self._emit(dumps(line | self._embedded(metrics)))

    def request(
        self,
        response: Response,
        method: str,
        began_ns: int,
        request_id: str,
        init: Mapping[str, float] | None = None,
        trace: Mapping[str, str] | None = None,
        *,
        cold_start: bool = False,
    ) -> None:
        """Write the line of one request, its metrics included, unless its level is too low.

        Args:
            response: what was answered; names route, model and version, and says how long its parts took.
            method: HTTP method.
            began_ns: `time.perf_counter_ns()` of the request's beginning.
            request_id: Lambda's.
            init: how long the parts of INIT took, of the environment's first request.
            trace: see `trace_context`.
            cold_start: whether this was the first request of the environment.
        """
        ended_ns = time.perf_counter_ns()
        status = response.status
        if self.level > _INFO and not _is_fault(status):
            return
        what = (response.route, response.model, response.version, method, status)
        head = self._heads.get(what) or self._head(*what)
        fields: dict[str, Any] = {
            "Latency": _ms(ended_ns - began_ns),
            "request_id": request_id,
            "cold_start": cold_start,
        }
        if response.notes:
            fields.update(response.notes)
        if response.timing is not None:
            _add_split(fields, response.timing, began_ns, ended_ns)
        if init is not None:
            fields["init"], fields["InitLatency"] = init, init["total_ms"]
        if trace:
            fields.update(trace)
        if _is_fault(status):
            fields["ServerError"] = 1
            fields.update(self._embedded(["ServerError"]))
        elif status >= 400:
            fields["ClientError"] = 1
        self._emit(f"{head},{dumps(fields)[1:]}")

    def _embedded(self, names: Iterable[str]) -> dict[str, Any]:
        """What makes metrics of a line's fields; nothing where no metrics are wanted."""
        if not self._namespace:
            return {}
        directive = {
            "Namespace": self._namespace,
            "Dimensions": [["FunctionName"]],
            "Metrics": [{"Name": name, "Unit": METRICS[name]} for name in names],
        }
        embedded = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": [directive]}
        return {"FunctionName": self._function_name, "_aws": embedded}

    def _head(self, route: str, model: str, version: int, method: str, status: int) -> str:
        """The beginning of a line, which many requests have in common: made once."""
        fields = {
            "level": "ERROR" if _is_fault(status) else "INFO",
            "message": "request",
            "Route": route or "none",
            "Model": model or "none",
            "Version": str(version or "none"),
            "method": method,
            "status": status,
        }
        if len(self._heads) >= _MAX_HEADS:  # methods are what callers make up
            self._heads.clear()
        head = self._heads[route, model, version, method, status] = dumps(fields)[:-1]
        return head

    def _emit(self, line: str) -> None:
        # One write per line: lines of concurrent writers never interleave.
        sys.stdout.write(line + "\n")
        sys.stdout.flush()


def _is_fault(status: int) -> bool:
    return status >= 500 and status != _NOT_IMPLEMENTED


def _ms(nanoseconds: int) -> float:
    """Milliseconds to three places, for a third of what `round` costs."""
    return nanoseconds // 1000 / 1000


def _add_split(fields: dict[str, Any], timing: tuple[int, ...], began_ns: int, ended_ns: int) -> None:
    """Split the latency of a prediction: its parts add up to the whole, together with a load and a shadow."""
    run_began, run_ended, load_began, fetched, loaded = timing
    decode = run_began - began_ns
    if load_began >= began_ns:  # by this request
        decode -= loaded - load_began
        fields["LoadLatency"] = _ms(loaded - load_began)
        fields["load"] = {"store_ms": _ms(fetched - load_began), "model_ms": _ms(loaded - fetched)}
    fields["DecodeLatency"] = _ms(decode)
    fields["RunLatency"] = _ms(run_ended - run_began)
    encode = _ms(ended_ns - run_ended)
    fields["EncodeLatency"] = round(encode - fields["ShadowLatency"], 3) if "ShadowLatency" in fields else encode
