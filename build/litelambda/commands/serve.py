"""`litelambda serve`: the deployed handler, behind the local gateway, on this machine."""

from __future__ import annotations

import os
import socket
import sys
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import TYPE_CHECKING

import uvicorn

from litelambda.commands.gateway import Gateway, routes_of_template
from litelambda.common.errors import UsageError
from litelambda.common.paths import DEFAULT_STORE, FUNCTIONS, TEMPLATE, store_url
from litelambda.store.checks import check_store_exists, choices_named
from litelambda_serving.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from litelambda.commands.gateway import Handler

__all__ = ["serve"]


def serve(
    store: str | Path = DEFAULT_STORE,
    *,
    host: str = "127.0.0.1",
    port: int = 8080,
    model: str = "",
    log_level: str = "INFO",
) -> None:
    """Serve the models of a store over HTTP until interrupted.

    Args:
        store: a folder, or `s3://bucket/prefix`.
        host: address to bind.
        port: port to bind, 0 for any free one; the one taken is printed on stderr.
        model: a model to load before the first request; "" loads each on its first request.
        log_level: the function's LOG_LEVEL.

    Raises:
        UsageError: the store does not exist, or the port is taken.
        ServingError: the model cannot be loaded.

    Example::

        from litelambda import serve

        serve("models", port=8080, model="fruit")
    """
    url = store_url(store)
    check_store_exists(url)
    os.environ.update(_environment(url, model, log_level))
    with choices_named(url, model):
        handler = _load_handler()
    settings = Settings.from_environment(os.environ)
    routes = routes_of_template(TEMPLATE, with_cors=bool(settings.cors_allow_origin))
    config = uvicorn.Config(
        Gateway(handler, routes, settings.base_path),
        host=host,
        port=port,
        log_level="warning",
        lifespan="off",
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


def _load_handler() -> Handler:
    """The deployed handler, from its file: a wheel has no top-level module `predict`."""
    module = ModuleType("predict")
    SourceFileLoader(module.__name__, str(FUNCTIONS / "predict.py")).exec_module(module)
    handler: Handler = module.handler
    return handler


def _environment(store: str, model: str, log_level: str) -> Mapping[str, str]:
    environment = {"MODEL_STORE": store, "MODEL_NAME": model, "LOG_LEVEL": log_level, "METRICS_NAMESPACE": ""}
    if store.startswith("s3://"):
        environment |= _aws_environment()
    return environment


def _aws_environment() -> dict[str, str]:
    """Credentials and region of this machine's AWS profile, in the variables that a function gets them in."""
    import boto3

    session = boto3.Session()
    credentials = session.get_credentials()
    if credentials is None:
        raise UsageError("no AWS credentials found: run `aws configure`, or set AWS_PROFILE")
    frozen = credentials.get_frozen_credentials()
    values = {
        "AWS_ACCESS_KEY_ID": frozen.access_key,
        "AWS_SECRET_ACCESS_KEY": frozen.secret_key,
        "AWS_SESSION_TOKEN": frozen.token,
        "AWS_REGION": session.region_name,
    }
    return {name: value for name, value in values.items() if value}
