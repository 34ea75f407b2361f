"""The local gateway over real HTTP, in a thread of the test's process."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import uvicorn

from litelambda.commands.gateway import Gateway, routes_of_template
from litelambda.common.paths import TEMPLATE


@contextmanager
def running(handler: Callable[..., Any], base_path: str = "") -> Iterator[int]:
    """Serve a handler as API Gateway does; yields the port."""
    config = uvicorn.Config(
        Gateway(handler, routes_of_template(TEMPLATE), base_path),
        port=0,
        log_level="warning",
        lifespan="off",
        ws="none",
    )
    server = uvicorn.Server(config)
    listener = config.bind_socket()
    listener.listen()
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def send(
    port: int, method: str, path: str, body: Any = None, headers: Mapping[str, str] | tuple[()] = ()
) -> tuple[int, dict[str, str], bytes]:
    """One request; its status, headers and body."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    connection.request(method, path, body=body, headers=dict(headers))
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer
