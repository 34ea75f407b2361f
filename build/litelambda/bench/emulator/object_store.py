"""An S3 on loopback that is as slow as it is told: GET and HEAD of objects held in memory.

Just enough for readers (ranges, entity tags, 404 as S3 words it, a list of folders), with a time to first byte and a
bandwidth per stream, so that a cold start over a network can be measured without one. Writing and signatures are not
its business: moto has those.
"""

from __future__ import annotations

import hashlib
import re
import socketserver
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

from litelambda.bench.emulator.http1 import Connection, ProtocolError, Request

_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE_BYTES = 64 * 1024
_IDLE_S = 60.0
_PAGE_KEYS = 1000  # of a list, as S3 has them
_LOOK_EVERY_S = 0.1  # whether to stop
_MISSING = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"""


class LoopbackS3(socketserver.ThreadingTCPServer):
    """Serves `objects` at path-style URLs on 127.0.0.1; a context manager.

    Args:
        objects: `bucket/key` to content.
        latency_ms: time to first byte of every answer.
        bytes_per_second: bandwidth of each stream; None for as fast as loopback goes.
        port: where to listen; 0 for a free one.
    """

    daemon_threads = allow_reuse_address = True
    request_queue_size = 64

    def __init__(
        self,
        objects: Mapping[str, bytes],
        *,
        latency_ms: float = 0.0,
        bytes_per_second: float | None = None,
        port: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.requests: list[str] = []
        self._objects: dict[str, tuple[bytes, str]] = {}
        for name, data in objects.items():
            self.add(name, data)
        self._latency_s = latency_ms / 1000
        self._bytes_per_second = bytes_per_second
        self._modified = formatdate(usegmt=True)
        self._thread = threading.Thread(target=self.serve_forever, args=(_LOOK_EVERY_S,), daemon=True)

    @property
    def url(self) -> str:
        """The endpoint, for `AWS_ENDPOINT_URL_S3`."""
        host, port = self.server_address[:2]
        return f"http://{host!s}:{port}"

    def add(self, name: str, data: bytes) -> None:
        """Hold one more object, `bucket/key`."""
        self._objects[name] = data, f'"{hashlib.md5(data).hexdigest()}"'  # noqa: S324 - as S3 does

    def answer(self, connection: Connection, request: Request) -> None:
        """Answer one request, as late as S3 would."""
        self.requests.append(f"{request.method} {request.target}")
        time.sleep(self._latency_s)
        headers = {"x-amz-request-id": "0123456789ABCDEF", "accept-ranges": "bytes"}
        target = urlsplit(request.target)
        name, query = unquote(target.path).lstrip("/"), parse_qs(target.query)
        found = self._objects.get(name)
        if "list-type" in query:
            document = self._list(
                name.rstrip("/"), query.get("prefix", [""])[0], query.get("continuation-token", [""])[0]
            )
            connection.respond(200, {**headers, "content-type": "application/xml"}, document)
        elif request.method not in ("GET", "HEAD"):
            connection.respond(405, headers)
        elif found is None:
            message = b"" if request.method == "HEAD" else _MISSING
            connection.respond(404, {**headers, "content-type": "application/xml"}, message)
        else:
            data, etag = found
            headers |= {"etag": etag, "last-modified": self._modified}
            if request.headers.get("if-none-match") == etag:
                connection.respond(304, headers)
            else:
                self._send(connection, request, headers, data)

    def _list(self, bucket: str, prefix: str, after: str) -> bytes:
        """A page of the folders below a prefix; the token of the next page is the last folder of this one."""
        start = f"{bucket}/{prefix}"
        folders = {
            f"{prefix}{name[len(start) :].partition('/')[0]}/" for name in self._objects if name.startswith(start)
        }
        left = sorted(folder for folder in folders if folder > after)
        page = left[:_PAGE_KEYS]
        cut = len(left) > len(page)
        token = f"<NextContinuationToken>{escape(page[-1])}</NextContinuationToken>" if cut else ""
        listed = "".join(f"<CommonPrefixes><Prefix>{escape(folder)}</Prefix></CommonPrefixes>" for folder in page)
        return (
            f"<ListBucketResult><Name>{escape(bucket)}</Name><Prefix>{escape(prefix)}</Prefix>{token}"
            f"<IsTruncated>{str(cut).lower()}</IsTruncated>{listed}</ListBucketResult>"
        ).encode()

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

    def __enter__(self) -> LoopbackS3:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.shutdown()
        self.server_close()


class _Handler(socketserver.BaseRequestHandler):
    """Answers the requests of one connection."""

    server: Any

    def handle(self) -> None:
        """Answer until the client goes away, as a killed function does."""
        self.request.settimeout(_IDLE_S)
        connection = Connection(self.request)
        with suppress(OSError, ProtocolError):
            while (request := connection.read_request()) is not None:
                self.server.answer(connection, request)
        connection.close()
