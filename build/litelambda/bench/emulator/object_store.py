"""An S3 on loopback that is as slow as it is told: GET and HEAD of objects held in memory.

Just enough for readers (ranges, entity tags, 404 as S3 words it), with a time to first byte and a bandwidth per
stream, so that a cold start over a network can be measured without one. Writing, listing and signatures are not its
business: moto has those.
"""

from __future__ import annotations

import hashlib
import re
import socket
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from litelambda.bench.emulator.http1 import Connection, ProtocolError, Request

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE_BYTES = 64 * 1024
_IDLE_S = 60.0
_MISSING = b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>NoSuchKey</Code><Message>%s</Message></Error>'


class LoopbackS3:
    """Serves `objects` at path-style URLs on 127.0.0.1; a context manager.

    Args:
        objects: `bucket/key` to content.
        latency_ms: Time to first byte of every answer.
        bytes_per_second: Bandwidth of each stream; None for as fast as loopback goes.
        port: Where to listen; 0 for a free one.
    """

    def __init__(
        self,
        objects: Mapping[str, bytes],
        *,
        latency_ms: float = 0.0,
        bytes_per_second: float | None = None,
        port: int = 0,
    ) -> None:
        self.requests: list[str] = []
        self._objects: dict[str, bytes] = {}
        self._etags: dict[str, str] = {}
        for name, data in objects.items():
            self.add(name, data)
        self._latency_s = latency_ms / 1000
        self._bytes_per_second = bytes_per_second
        self._modified = formatdate(usegmt=True)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._connections: set[Connection] = set()
        self._thread = threading.Thread(target=self._accept, name="loopback-s3", daemon=True)

    @property
    def url(self) -> str:
        """The endpoint, for `AWS_ENDPOINT_URL_S3`."""
        host, port = self._listener.getsockname()
        return f"http://{host}:{port}"

    def add(self, name: str, data: bytes) -> None:
        """Hold one more object, `bucket/key`."""
        self._objects[name] = data
        self._etags[name] = f'"{hashlib.md5(data).hexdigest()}"'  # noqa: S324 - as S3 does

    def _accept(self) -> None:
        while True:
            try:
                sock, _address = self._listener.accept()
            except OSError:  # closed: the end of this server
                return
            sock.settimeout(_IDLE_S)
            connection = Connection(sock)
            self._connections.add(connection)
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: Connection) -> None:
        try:
            while (request := connection.read_request()) is not None:
                self.requests.append(f"{request.method} {request.target}")
                time.sleep(self._latency_s)
                self._answer(connection, request)
        except (OSError, ProtocolError):  # the client went away, as a killed function does
            pass
        finally:
            self._connections.discard(connection)
            connection.close()

    def _answer(self, connection: Connection, request: Request) -> None:
        name = unquote(urlsplit(request.target).path).lstrip("/")
        headers = {"x-amz-request-id": "0123456789ABCDEF", "accept-ranges": "bytes"}
        if request.method not in ("GET", "HEAD"):
            connection.respond(405, headers)
        elif (data := self._objects.get(name)) is None:
            message = b"" if request.method == "HEAD" else _MISSING % b"The specified key does not exist."
            connection.respond(404, {**headers, "content-type": "application/xml"}, message)
        else:
            headers |= {"etag": self._etags[name], "last-modified": self._modified}
            if request.headers.get("if-none-match") == self._etags[name]:
                connection.respond(304, headers)
            else:
                self._send(connection, request, headers, data)

    def _send(self, connection: Connection, request: Request, headers: dict[str, str], data: bytes) -> None:
        start, end, status = 0, len(data), 200
        if match := _RANGE.fullmatch(request.headers.get("range", "")):
            first, last = match.groups()
            start = int(first) if first else max(len(data) - int(last), 0)
            end = min(int(last) + 1, len(data)) if first and last else len(data)
            if start >= end:
                connection.respond(416, {**headers, "content-range": f"bytes */{len(data)}"})
                return
            status = 206
            headers["content-range"] = f"bytes {start}-{end - 1}/{len(data)}"
        headers |= {"content-length": str(end - start), "content-type": "binary/octet-stream"}
        body = memoryview(data)[start:end] if request.method == "GET" else memoryview(b"")
        if self._bytes_per_second is None:
            connection.respond(status, headers, body)
            return
        connection.sock.sendall(connection.head(status, headers))
        due = time.monotonic()
        for offset in range(0, len(body), _PIECE_BYTES):
            piece = body[offset : offset + _PIECE_BYTES]
            due += len(piece) / self._bytes_per_second
            connection.sock.sendall(piece)
            time.sleep(max(due - time.monotonic(), 0))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with suppress(OSError):  # where a listening socket cannot be shut down, closing it ends the wait
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join(timeout=5)
        for connection in list(self._connections):
            connection.close()
