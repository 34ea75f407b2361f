"""The little of HTTP/1.1 that the loopback servers need: read a request, write a response, keep the connection.

`http.server` would do, but its header parser costs a few hundred microseconds a request, which the benchmarks would
then charge to the handlers. Knows nothing of Lambda or S3.
"""

from __future__ import annotations

import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

MAX_HEAD_BYTES = 2 * 1024 * 1024  # a runtime client may send a megabyte of X-Ray cause in one header
MAX_BODY_BYTES = 64 * 1024 * 1024
CHUNK_BYTES = 100_000
_RECEIVE_BYTES = 256 * 1024

REASONS = {
    100: "Continue",
    200: "OK",
    202: "Accepted",
    206: "Partial Content",
    304: "Not Modified",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    416: "Range Not Satisfiable",
}


class ProtocolError(Exception):
    """The peer sent what is not HTTP/1.1, or closed the connection in the middle of a request."""


@dataclass(frozen=True)
class Request:
    """One request as it came: header names in lower case, the body without its transfer coding."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes


class Connection:
    """A server's end of one kept-alive connection."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock = sock
        self._buffer = bytearray()

    def read_request(self) -> Request | None:
        """Wait for one whole request.

        Returns:
            The request, or None when the peer closed the connection between two requests.

        Raises:
            ProtocolError: The request is malformed, too large or cut short.
            TimeoutError: The socket's timeout passed.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise ProtocolError(f"a request's head is over {MAX_HEAD_BYTES} bytes")
            if not self._receive():
                if self._buffer:
                    raise ProtocolError("the connection was closed inside a request's head")
                return None
        lines = self._take(end + 4)[:end].decode("latin-1").split("\r\n")
        try:
            method, target, _version = lines[0].split(" ")
        except ValueError as error:
            raise ProtocolError(f"not a request line: {lines[0][:80]!r}") from error
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _colon, value in fields}
        return Request(method, target, headers, self._read_body(headers))

    def respond(self, status: int, headers: Mapping[str, str], body: bytes | memoryview = b"") -> None:
        """Send a whole response; `content-length` is added unless `headers` has it (as an answer to HEAD must)."""
        self.sock.sendall(b"".join((self.head(status, {"content-length": str(len(body)), **headers}), body)))

    def respond_in_chunks(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        """Send a response whose length is not told beforehand."""
        self.sock.sendall(self.head(status, {**headers, "transfer-encoding": "chunked"}))
        for start in range(0, len(body), CHUNK_BYTES):
            chunk = body[start : start + CHUNK_BYTES]
            self.sock.sendall(b"%x\r\n%b\r\n" % (len(chunk), chunk))
        self.sock.sendall(b"0\r\n\r\n")

    @staticmethod
    def head(status: int, headers: Mapping[str, str]) -> bytes:
        """The status line and header block of a response."""
        lines = [f"HTTP/1.1 {status} {REASONS.get(status, 'Unknown')}", *(f"{k}: {v}" for k, v in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1")

    def close(self) -> None:
        """End the connection both ways, so that a thread that reads it stops; harmless when the peer did so first."""
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)
        self.sock.close()

    def _read_body(self, headers: Mapping[str, str]) -> bytes:
        length = int(headers.get("content-length", "0"))
        chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        if length > MAX_BODY_BYTES:
            raise ProtocolError(f"a request's body of {length} bytes is over {MAX_BODY_BYTES}")
        if headers.get("expect", "").lower() == "100-continue":
            self.sock.sendall(self.head(100, {}))
        return self._read_chunks() if chunked else self._read_exactly(length)

    def _read_chunks(self) -> bytes:
        chunks = bytearray()
        while size := int(self._read_line().split(b";")[0], 16):
            if len(chunks) + size > MAX_BODY_BYTES:
                raise ProtocolError(f"a chunked body is over {MAX_BODY_BYTES} bytes")
            chunks += self._read_exactly(size)
            self._read_line()
        while self._read_line():  # trailers
            pass
        return bytes(chunks)

    def _read_line(self) -> bytes:
        while (end := self._buffer.find(b"\r\n")) < 0:
            if len(self._buffer) > MAX_HEAD_BYTES or not self._receive():
                raise ProtocolError("the connection was closed inside a chunked body")
        return bytes(self._take(end + 2)[:end])

    def _read_exactly(self, length: int) -> bytes:
        while len(self._buffer) < length:
            if not self._receive():
                raise ProtocolError(f"the connection was closed after {len(self._buffer)} of {length} body bytes")
        return bytes(self._take(length))

    def _receive(self) -> bool:
        data = self.sock.recv(_RECEIVE_BYTES)
        self._buffer += data
        return bool(data)

    def _take(self, length: int) -> bytearray:
        taken = self._buffer[:length]
        del self._buffer[:length]
        return taken
