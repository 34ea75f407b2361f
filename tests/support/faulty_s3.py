"""An S3 on loopback that misbehaves as told: for what moto cannot do (refusals, outages, bodies cut short)."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    Fault = Callable[[str], int | None]

CUT_SHORT = -1
"""A fault: a full Content-Length, half of the body, and a closed connection."""


@contextmanager
def faulty_s3(objects: Mapping[str, bytes], fault: Fault) -> Iterator[tuple[str, list[str]]]:
    """Serve `objects` by key of a bucket named `bucket`.

    Args:
        objects: bodies by key.
        fault: by key, the status to answer with instead, `CUT_SHORT`, or None to behave.

    Yields:
        The endpoint's URL, and the list of keys asked for so far.
    """
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # a body behind its head would wait 40 ms
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            key = self.path.removeprefix("/bucket/")
            asked.append(key)
            status = fault(key)
            if status is not None and status != CUT_SHORT:
                self._answer(status, b"<Error><Code>Fault</Code><Message>as told</Message></Error>")
            elif key not in objects:
                self._answer(404, b"<Error><Code>NoSuchKey</Code></Error>")
            elif status == CUT_SHORT:
                body = objects[key]
                self._head(206, len(body), {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"})
                self.wfile.write(body[: len(body) // 2])
                self.close_connection = True
            elif "Range" in self.headers:
                first, _, last = self.headers["Range"].removeprefix("bytes=").partition("-")
                body = objects[key][int(first) : int(last) + 1]
                total = len(objects[key])
                self._answer(206, body, {"Content-Range": f"bytes {first}-{int(first) + len(body) - 1}/{total}"})
            else:
                self._answer(200, objects[key])

        def _answer(self, status: int, body: bytes, headers: Mapping[str, str] | None = None) -> None:
            self._head(status, len(body), headers)
            self.wfile.write(body)

        def _head(self, status: int, length: int, headers: Mapping[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.send_header("ETag", '"0"')
            self.send_header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as endpoint:
        yield endpoint, asked


@contextmanager
def refusing_s3(status: int, body: bytes, headers: Mapping[str, str]) -> Iterator[str]:
    """An S3 that answers every request with one refusal.

    Yields:
        The endpoint's URL.
    """

    class Handler(BaseHTTPRequestHandler):
        disable_nagle_algorithm = True  # a body behind its head would wait 40 ms
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

        def log_message(self, *_: object) -> None:
            pass

    with _serving(Handler) as endpoint:
        yield endpoint


@contextmanager
def _serving(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
