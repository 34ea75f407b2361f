"""How the lean runtime client reports a failure: the error that it posts and the lines that it logs.

Loaded when something has failed, never before. The forms are those of the stock client.
"""

from __future__ import annotations

import os
import sys
import time
import traceback
from contextlib import suppress

from litelambda_serving.errors import LeanRuntimeError
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

__all__ = ["describe", "log"]

_NO_BREAK_SPACE = "\u00a0"
"""Indents: CloudWatch drops leading spaces."""


def describe(error: BaseException, request_id: str = "") -> dict[str, Any]:
    """An error as the Runtime API takes it.

    Args:
        error: what was raised.
        request_id: of the invocation; "" during INIT.
    """
    try:
        message = str(error)
    except Exception:  # noqa: BLE001 - a message that cannot be made must not stop the report
        message = "<exception str() failed>"  # the traceback module's words
    return {
        "errorMessage": message,
        "errorType": error.error_type if isinstance(error, LeanRuntimeError) else type(error).__name__,
        "requestId": request_id,
        "stackTrace": _stack(error),
    }


def log(error: Mapping[str, Any]) -> None:
    """Write an error as one log event."""
    if os.environ.get("AWS_LAMBDA_LOG_FORMAT") == "JSON":
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        text = dumps({"timestamp": now, "level": "ERROR", **error})
    else:
        lines = [f"[ERROR] {error['errorType']}: {error['errorMessage']}", "Traceback (most recent call last):"]
        lines += [_indented(line) for entry in error["stackTrace"] for line in entry.splitlines()]
        text = "\r".join(lines)  # no line feed: that would end the event
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except (OSError, ValueError, AttributeError):
        # The handler has closed or replaced it. Lambda reads standard error too, and the report must be posted anyway.
        with suppress(OSError):
            os.write(2, (text + "\n").encode("utf-8", "backslashreplace"))


def _stack(error: BaseException) -> list[str]:
    """The frames of the handler, below those of the client."""
    if isinstance(error, LeanRuntimeError):
        cause = error.__cause__
        if isinstance(cause, SyntaxError):
            return [f'  File "{cause.filename}" Line {cause.lineno}\n    {cause.text}']
        return []
    frames = traceback.extract_tb(error.__traceback__)
    client = "lean_runtime/__init__.py"
    start = next((index for index, frame in enumerate(frames) if not frame.filename.endswith(client)), 0)
    return traceback.format_list(frames[start:])


def _indented(line: str) -> str:
    text = line.lstrip(" ")
    return _NO_BREAK_SPACE * (len(line) - len(text)) + text
