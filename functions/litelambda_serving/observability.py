"""One JSON line per request, which is both its log entry and its metrics (CloudWatch Embedded Metric Format).

No payloads, no headers, no addresses: a line says which model answered, how and how fast. Written straight to stdout,
which Lambda sends to CloudWatch; the logging package and powertools would cost 28 ms of INIT for the same line.
"""

from __future__ import annotations

import sys
import time

from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.http import Response

__all__ = ["Log"]

_LEVELS = {"DEBUG": 10, "INFO": 20, "WARNING": 30, "ERROR": 40}

_NOT_IMPLEMENTED = 501
"""The status of a request for a part of a protocol that is not supported: the client's fault, not ours."""

_METRICS = [
    {"Name": "Latency", "Unit": "Milliseconds"},
    {"Name": "ClientError", "Unit": "Count"},
    {"Name": "ServerError", "Unit": "Count"},
]

_DIMENSIONS = [["FunctionName"], ["FunctionName", "Route"], ["FunctionName", "Route", "Model", "Version"]]
"""The function's name has its stack's in it: stages do not mix. The version sets a canary apart."""

_SHADOW_METRICS = [*_METRICS, {"Name": "ShadowRows", "Unit": "Count"}, {"Name": "ShadowDisagreements", "Unit": "Count"}]


class Log:
    """Structured lines on stdout.

    Attributes:
        level: number of the lowest level that is written.
    """

    def __init__(self, level: str, metrics_namespace: str, function_name: str) -> None:
        self.level = _LEVELS[level]
        self._function_name = function_name
        self._directive, self._shadow_directive = (
            [{"Namespace": metrics_namespace, "Dimensions": _DIMENSIONS, "Metrics": metrics}]
            for metrics in (_METRICS, _SHADOW_METRICS)
        )
        self._metrics = bool(metrics_namespace)

    def write(self, level: str, message: str, **fields: Any) -> None:
        """Write one line, unless its level is too low. Fields are anything JSON can hold."""
        if _LEVELS[level] >= self.level:
            self._emit({"level": level, "message": message, **fields})

    def request(self, response: Response, method: str, milliseconds: float, request_id: str, cold_start: bool) -> None:
        """Write the line of one request, its metrics included, unless its level is too low.

        Args:
            response: what was answered; names route, model and version.
            method: HTTP method.
            milliseconds: time in the handler.
            request_id: Lambda's.
            cold_start: whether this was the first request of the environment.
        """
        status = response.status
        is_fault = status >= 500 and status != _NOT_IMPLEMENTED
        level = "ERROR" if is_fault else "INFO"
        if _LEVELS[level] < self.level:
            return
        fields: dict[str, Any] = {
            "level": level,
            "message": "request",
            "Route": response.route or "none",
            "Model": response.model or "none",
            "Version": str(response.version or "none"),
            "method": method,
            "status": status,
            "Latency": round(milliseconds, 3),
            "request_id": request_id,
            "cold_start": cold_start,
        }
        directive = self._directive
        if response.notes:
            fields.update(response.notes)
            if "ShadowRows" in response.notes:
                directive = self._shadow_directive
        if self._metrics:
            fields["FunctionName"] = self._function_name
            fields["ClientError"] = int(status >= 400 and not is_fault)
            fields["ServerError"] = int(is_fault)
            fields["_aws"] = {"Timestamp": int(time.time() * 1000), "CloudWatchMetrics": directive}
        self._emit(fields)

    def _emit(self, fields: dict[str, Any]) -> None:
        # One write per line: lines of concurrent writers never interleave.
        sys.stdout.write(dumps(fields) + "\n")
        sys.stdout.flush()
