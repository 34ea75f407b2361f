"""An ASGI application over real HTTP, in a thread of the test's process."""

from __future__ import annotations

import http.client
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

__all__ = ["running", "send"]


@contextmanager
def running(application: Any) -> Iterator[int]:
    """Serve an application from its lifespan's beginning to its end; yields the port."""
    config = uvicorn.Config(application, port=0, log_config=None, lifespan="on", ws="none")
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # as `litelambda serve` does
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        while not server.started and thread.is_alive():
            time.sleep(0.005)
        assert server.started, "the application did not start"
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def send(
    port: int, method: str, path: str, body: Any = None, headers: Mapping[str, str] | tuple[()] = ()
) -> tuple[int, dict[str, str], bytes]:
    """One request; its status, headers by lower-cased name, and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body=body, headers=dict(headers))
    response = connection.getresponse()
    answer = response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
    connection.close()
    return answer
