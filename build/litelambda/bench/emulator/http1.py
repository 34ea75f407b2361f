"""The little of HTTP/1.1 that the loopback servers need: read a request, write a response, keep the connection.

`http.server` would do, but its header parser costs a few hundred microseconds a request, which the benchmarks would
then charge to the handlers. Knows nothing of Lambda or S3.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus

_CHUNK_BYTES = 100_000
_MAX_LINE_BYTES = 2 * 1024 * 1024  # a runtime client may send a megabyte of X-Ray cause in one header
_MAX_BODY_BYTES = 256 * 1024 * 1024


class ProtocolError(Exception):
    """The peer sent what is not HTTP/1.1, or closed the connection in the middle of a request."""


@dataclass(frozen=True)
class Request:
    """One request as it came: header names in lower case, the body without its transfer coding.

    Attributes:
        chunks: of a body that came in such: when each was there, by `time.perf_counter`, and what it was.
        trailers: what followed them, names in lower case.
    """

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes
    chunks: Sequence[tuple[float, bytes]] = ()
    trailers: Mapping[str, str] = field(default_factory=dict)


class Connection:
    """A server's end of one kept-alive connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._reader = sock.makefile("rb")

    def read_request(self) -> Request | None:
        """Wait for one whole request; None when the peer closed the connection between two.

        Raises:
            ProtocolError: the request is malformed, too large or cut short.
            TimeoutError: the socket's timeout passed.
        """
        if not self._reader.peek(1):
            return None
        line = self._line()
        try:
            method, target, _version = line.split(" ")
        except ValueError as error:
            raise ProtocolError(f"not a request line: {line[:80]!r}") from error
        headers = self._headers()
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(self.head(100, {}))
        if "chunked" in headers.get("transfer-encoding", "").lower():
            chunks = self._chunks()
            return Request(method, target, headers, b"".join(data for _, data in chunks), chunks, self._headers())
        return Request(method, target, headers, self._read(int(headers.get("content-length", "0"))))

    def respond(self, status: int, headers: Mapping[str, str], body: bytes | memoryview = b"") -> None:
        """Send a whole response; `content-length` is added unless `headers` has it (as an answer to HEAD must)."""
        self.sock.sendall(b"".join((self.head(status, {"content-length": str(len(body)), **headers}), body)))

    def respond_in_chunks(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a response whose length is not told beforehand."""
        self.sock.sendall(self.head(status, {**headers, "transfer-encoding": "chunked"}))
        for start in range(0, len(body), _CHUNK_BYTES):
            chunk = body[start : start + _CHUNK_BYTES]
            self.sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.sock.sendall(b"0\r\n\r\n")

    @staticmethod
    def head(status: int, headers: Mapping[str, str]) -> bytes:
        """The status line and header block of a response."""
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def close(self) -> None:
        """End the connection both ways, so that a thread that reads it stops; harmless when the peer did so first."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self._reader.close()
        self.sock.close()

    def _headers(self) -> dict[str, str]:
        headers: dict[str, str] = {}
        while line := self._line():
            name, _colon, value = line.partition(":")
            headers[name.lower()] = (
                f"{headers[name.lower()]}, {value.strip()}" if name.lower() in headers else value.strip()
            )
        return headers

    def _chunks(self) -> list[tuple[float, bytes]]:
        chunks, length = [], 0
        while size := int(self._line().partition(";")[0], 16):
            data = self._read(size, length)
            length += size
            chunks.append((time.perf_counter(), data))
            self._line()
        return chunks

    def _line(self) -> str:
        line = self._reader.readline(_MAX_LINE_BYTES)
        if not line.endswith(b"\r\n"):
            raise ProtocolError(f"a line of a request is cut short, or over {_MAX_LINE_BYTES} bytes")
        return line[:-2].decode("latin-1")

    def _read(self, size: int, already: int = 0) -> bytes:
        if already + size > _MAX_BODY_BYTES:
            raise ProtocolError(f"a request's body is over {_MAX_BODY_BYTES} bytes")
        data = self._reader.read(size)
        if len(data) < size:
            raise ProtocolError(f"the connection was closed after {len(data)} of {size} body bytes")
        return data
