"""`litelambda serve`: the deployed handlers as an ASGI application, on this machine."""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

import uvicorn

from litelambda.commands.local_function import load_function
from litelambda.common.errors import UsageError
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda_serving.asgi import Application

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["serve"]


def serve(
    store: str | Path = DEFAULT_STORE,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    model: str = "",
    code: str | Path | None = None,
    log_level: str = "INFO",
) -> None:
    """Serve the models of a store over HTTP until interrupted.

    Args:
        store: a folder, or `s3://bucket/prefix`.
        host: address to bind.
        port: port to bind, 0 for any free one; the one taken is printed on stderr.
        model: a model to load before the first request; "" loads each on its first request.
        code: a file with `preprocess`, `postprocess` or both, which run before and after the model.
        log_level: the function's LOG_LEVEL.

    Raises:
        UsageError: the store or the file does not exist, or the port is taken.
        ServingError: the model or the code cannot be loaded.

    Example::

        from litelambda import serve

        serve("models", port=8080, model="fruit")
    """
    url = store_url(store)
    application = Application(load_function(url, model, code=code, log_level=log_level))
    application.load()
    config = uvicorn.Config(
        application,
        host=host,
        port=port,
        log_level="warning",
        lifespan="on",
        ws="none",
        server_header=False,
        date_header=False,
    )
    try:
        listener = config.bind_socket()
    except SystemExit as error:
        raise UsageError(f"cannot listen on {host}:{port}: is it in use? Choose another --port") from error
    # asyncio turns Nagle's algorithm off only for sockets that were opened as IPPROTO_TCP, which uvicorn's is not: a
    # body behind its head would wait 40 ms for the client's delayed acknowledgment. Accepted connections inherit it.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.listen()  # now, so that whoever reads the line below can connect
    address, bound_port = listener.getsockname()[:2]
    print(f"litelambda: serving {url} on http://{address}:{bound_port} (Ctrl-C stops)", file=sys.stderr, flush=True)
    uvicorn.Server(config).run(sockets=[listener])
