"""A function's log: the lines of CloudWatch Logs as they come, and requests as rows of a table.

What a line holds is in docs/reference/deployment.md; what Lambda writes around it (START, END, REPORT) is left out.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from litelambda.common.aws import aws_client, refusals_explained

__all__ = ["FAULTS", "HEADER", "LogLine", "describe_line", "is_fault", "log_group", "read_log"]

_POLL_SECONDS = 2.0
_LATE_MS = 30_000
"""How late a line may come: a log is asked again for so long back, and lines that were seen are left out."""

_PLATFORM = ("START RequestId", "END RequestId", "REPORT RequestId", "INIT_START", "EXTENSION", "XRAY TraceId")
FAULTS = '?ERROR ?"timed out" ?exited'
"""The pattern of lines among which `is_fault` finds those that say so."""

_WIDTHS = (20, 6, 7, 12, 24, 10, 10)
_LEFT_OUT = {"level", "message", "_aws", "FunctionName"}


@dataclass(frozen=True)
class LogLine:
    """One line.

    Attributes:
        time_ms: when it was written, in milliseconds since 1970.
        text: as it is.
    """

    time_ms: int
    text: str

    @property
    def fields(self) -> dict[str, Any]:
        """Those of a JSON line; none of another."""
        try:
            found = json.loads(self.text)
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}


def log_group(function: str) -> str:
    """The log group of a function of a stack."""
    return f"/aws/lambda/{function}"


def read_log(function: str, start_ms: int, *, pattern: str = "", follow: bool = False) -> Iterator[LogLine]:
    """The lines that a function wrote, oldest first.

    Args:
        function: its name.
        start_ms: the earliest time.
        pattern: what CloudWatch is to look for; "" for all.
        follow: continue with what is written from now on, until interrupted.

    Raises:
        UsageError: this machine has no credentials, profile or region.
        AwsError: the log cannot be read.
    """
    client = aws_client("logs")
    seen: dict[str, int] = {}
    while True:
        newest = max(seen.values(), default=start_ms)
        with refusals_explained(f"the log {log_group(function)} cannot be read"):
            for event in _events(client, log_group(function), max(start_ms, newest - _LATE_MS), pattern):
                event_id = event.get("eventId") or f"{event['timestamp']} {event['message']}"  # emulators have none
                if event_id not in seen:
                    seen[event_id] = event["timestamp"]
                    text = event["message"].rstrip()
                    if text and not text.startswith(_PLATFORM):
                        yield LogLine(event["timestamp"], text)
        if not follow:
            return
        newest = max(seen.values(), default=start_ms)
        seen = {event_id: at for event_id, at in seen.items() if at >= newest - _LATE_MS}
        time.sleep(_POLL_SECONDS)


def _events(client: Any, group: str, start_ms: int, pattern: str) -> Iterator[dict[str, Any]]:
    more = {"filterPattern": pattern} if pattern else {}
    while True:
        answer = client.filter_log_events(logGroupName=group, startTime=start_ms, **more)
        yield from answer["events"]
        if "nextToken" not in answer:
            return
        more["nextToken"] = answer["nextToken"]


def is_fault(line: LogLine) -> bool:
    """Whether a line says that something failed: at level ERROR, or in Lambda's own words.

    >>> is_fault(LogLine(0, '{"level": "ERROR", "message": "request"}')), is_fault(LogLine(0, '{"status": 200}'))
    (True, False)
    """
    if fields := line.fields:
        return fields.get("level") == "ERROR"
    return any(words in line.text for words in ("Task timed out", "Runtime exited", "[ERROR]"))


def _row(*cells: str) -> str:
    return "  ".join(cell.ljust(width) for cell, width in zip(cells, _WIDTHS, strict=False)).rstrip()


HEADER = _row("TIME", "STATUS", "METHOD", "ROUTE", "MODEL", "MS", "INIT MS")


def describe_line(line: LogLine) -> str:
    """A request as a row of the table under `HEADER`; any other line by its level, message and fields.

    >>> print(describe_line(LogLine(0, '{"message": "request", "status": 200, "method": "GET", "Latency": 1}')))
    1970-01-01 00:00:00   200     GET                                              1.0
    >>> print(describe_line(LogLine(0, '{"level": "ERROR", "message": "no model", "model": "m"}')))
    1970-01-01 00:00:00  ERROR no model model="m"
    """
    when = datetime.fromtimestamp(line.time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
    fields = line.fields
    if fields.get("message") != "request":
        if not fields:
            return f"{when}  {line.text}"
        more = (f"{name}={json.dumps(value)}" for name, value in fields.items() if name not in _LEFT_OUT)
        return " ".join([f"{when}  {fields.get('level', '')}", str(fields.get("message", "")), *more])
    model = "" if fields.get("Model") in {None, "none"} else f"{fields['Model']}:{fields.get('Version', '')}"
    return _row(
        when,
        str(fields.get("status", "")),
        str(fields.get("method", "")),
        str(fields.get("Route", "")),
        model,
        f"{fields['Latency']:.1f}" if "Latency" in fields else "",
        f"{fields['InitLatency']:.0f}" if "InitLatency" in fields else "",
    )
