"""Lambda's format of an HTTP answer that is streamed: its status and headers as JSON, eight zero bytes, its body.

Loaded where RESPONSE_STREAMING is set. A function is not told whether it is invoked with response streaming, so that
the setting says which callers do so.

Source: docs.aws.amazon.com/apigateway/latest/developerguide/response-transfer-mode-lambda.html; `HttpResponseStream` of
AWS's runtime client for Node.js.
"""

from __future__ import annotations

from litelambda_serving.errors import LeanRuntimeError, PayloadTooLargeError
from litelambda_serving.http import StreamedResponse, public_message
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from litelambda_serving.http import Response

__all__ = ["MAX_STREAM_BYTES", "integrated", "is_streamed", "observed"]

MAX_STREAM_BYTES = 200 * 1024 * 1024
"""Lambda's limit on a streamed response."""

_DELIMITER = bytes(8)
_ROOM_BYTES = 64 * 1024  # for the prelude, and what is not sure of Lambda's MB


def is_streamed(event: Any, callers: str) -> bool:
    """Whether an event's answer is to be streamed.

    Args:
        event: of the invocation.
        callers: which are streamed, RESPONSE_STREAMING: `function-url`, `rest-api`, or both with a comma.
    """
    context = event.get("requestContext") if type(event) is dict else None
    if type(context) is not dict:
        return False
    if event.get("version") == "2.0":
        return "function-url" in callers and ".lambda-url." in str(context.get("domainName"))
    return "rest-api" in callers and "version" not in event and "elb" not in context


def integrated(response: Response, ended: Callable[[Exception | None], None], request_id: str) -> Iterator[bytes]:
    """A response as Lambda takes it in parts.

    Args:
        response: any.
        ended: called when all of it is made, or with what ended it early.
        request_id: of the invocation.

    Raises:
        LeanRuntimeError: what ended it early, in words that the caller may read.
    """
    headers = {"Content-Type": response.content_type, **response.headers}
    prelude = dumps({"statusCode": response.status, "headers": headers}).encode() + _DELIMITER
    if not isinstance(response, StreamedResponse):
        body = response.body
        yield prelude + (body.encode() if isinstance(body, str) else body)
        ended(None)
        return
    try:
        for chunk in _limited(response.chunks):
            yield prelude + chunk
            prelude = b""
    except Exception as error:  # noqa: BLE001 - the client learns what is its own fault, the log all
        ended(error)
        raise LeanRuntimeError(f"Function.{type(error).__name__}", public_message(error, request_id)) from None
    ended(response.fault)


def _limited(chunks: Iterator[bytes]) -> Iterator[bytes]:
    """Break off where Lambda would."""
    left = MAX_STREAM_BYTES - _ROOM_BYTES
    for chunk in chunks:
        left -= len(chunk)
        if left < 0:
            raise PayloadTooLargeError(
                f"the predictions take more than the {MAX_STREAM_BYTES} bytes of a streamed response: "
                "send fewer rows at a time, or score the file in batch"
            )
        yield chunk


def observed(response: StreamedResponse, ended: Callable[[Exception | None], None]) -> Iterator[bytes]:
    """The chunks of a response that is sent over HTTP itself; see `integrated`."""
    return _observed(response.chunks, response, ended)


def _observed(
    chunks: Iterator[bytes], response: StreamedResponse, ended: Callable[[Exception | None], None]
) -> Iterator[bytes]:
    try:
        yield from chunks
    except Exception as error:
        ended(error)
        raise
    ended(response.fault)
