"""`litelambda serve`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from litelambda.cli.options import code_option, store_option

if TYPE_CHECKING:
    from pathlib import Path


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise click.BadParameter(f"{text!r} is not a port: expected a number from 0 to 65535")
    return int(text)


@click.command()
@store_option()
@click.option("--host", default="127.0.0.1", metavar="H", help="Address to bind.")
@click.option("--port", type=_port, default="8080", metavar="P", help="Port to bind, 0 for a free one.")
@click.option("--model", default="", metavar="NAME", help="Load this model before the first request.")
@code_option
@click.option(
    "--log-level",
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"]),
    default="INFO",
    help="The least serious messages that the function logs.",
)
def command(store: str, host: str, port: int, model: str, code: Path | None, log_level: str) -> None:
    """Serve a store's models over HTTP, as the deployed function does."""
    from litelambda.commands.serve import serve

    serve(store, host=host, port=port, model=model, code=code, log_level=log_level)
