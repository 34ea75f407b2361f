"""How the lean runtime client sends an answer that is made while it is sent: Lambda's response streaming.

Loaded with the first such answer. It has a connection of its own, which is closed after it, as the documentation asks;
the kept one waits for the next invocation.

Source: docs.aws.amazon.com/lambda/latest/dg/runtimes-custom.html, "Implementing response streaming in a custom
runtime"; headers and trailers as AWS's clients for Node.js and Rust write them.
"""

from __future__ import annotations

import sys
from _socket import AF_INET, IPPROTO_TCP, SOCK_STREAM, TCP_NODELAY, socket
from binascii import b2a_base64

from litelambda_serving.json_codec import dumps
from litelambda_serving.lean_runtime.errors import describe, log

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

__all__ = ["Stream"]

_CONTENT_TYPE = b"application/vnd.awslambda.http-integration-response"
_ERROR_TYPE, _ERROR_BODY = b"Lambda-Runtime-Function-Error-Type", b"Lambda-Runtime-Function-Error-Body"
_HEAD = (
    b"Lambda-Runtime-Function-Response-Mode: streaming\r\nTransfer-Encoding: chunked\r\n"
    b"Trailer: " + _ERROR_TYPE + b"\r\nTrailer: " + _ERROR_BODY + b"\r\n\r\n"
)


class Stream:
    """An answer in parts."""

    def __init__(self, parts: Iterator[bytes]) -> None:
        """Make the first part, so that what it raises can still be the invocation's error."""
        self._parts = parts
        self._first = next(parts, b"")

    def send(self, client: Any, request_id: str) -> None:
        """Send each part as soon as it is made.

        What a part raises ends the answer, with trailers that say so. An API that takes no more of it, because the
        caller is gone or the answer too long, has said so itself: the environment goes on to the next invocation.

        Args:
            client: the `RuntimeClient`.
            request_id: of the invocation.
        """
        connection = socket(AF_INET, SOCK_STREAM)
        try:
            connection.connect(client.peer)
            connection.setsockopt(IPPROTO_TCP, TCP_NODELAY, 1)
            head = client.head_of(f"/invocation/{request_id}/response", _CONTENT_TYPE)
            connection.sendall(b"".join([*head, _HEAD, _chunk(self._first)]))
            connection.sendall(self._send_rest(connection, client, request_id))
            status, _, body = client.receive(connection)
            if status != 202:
                _warn(f"the Runtime API answered {status} to a streamed response: {body[:200]!r}")
        except ConnectionError as error:
            _warn(f"a streamed response was cut off: {type(error).__name__} {error}")
        finally:
            close = getattr(self._parts, "close", None)
            if close is not None:
                close()
            connection.close()

    def _send_rest(self, connection: socket, client: Any, request_id: str) -> bytes:
        """Send the other parts; return what ends the answer."""
        while True:
            try:
                part = next(self._parts)
            except StopIteration:
                return b"0\r\n\r\n"
            except Exception as error:  # noqa: BLE001 - a handler's failure is the invocation's, not the loop's
                described = describe(error, request_id)
                log(described)
                del described["stackTrace"]
                shown = client.shown_type(described["errorType"])
                body = b2a_base64(dumps(described).encode(), newline=False)
                return b"0\r\n%b: %b\r\n%b: %b\r\n\r\n" % (_ERROR_TYPE, shown, _ERROR_BODY, body)
            if part:
                connection.sendall(_chunk(part))


def _chunk(part: bytes) -> bytes:
    """A part in HTTP's chunked coding, whose empty chunk would be the end."""
    return b"%x\r\n%b\r\n" % (len(part), part) if part else b""


def _warn(message: str) -> None:
    sys.stdout.write(f"[WARNING] {message}\n")
