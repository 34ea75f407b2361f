"""`litelambda predict`."""

from __future__ import annotations

import base64
import json
import sys
from pathlib import Path
from typing import Any

import click

from litelambda.cli.options import code_option, print_json, service_options, store_option

_PICTURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"BM")
"""What JPEG, PNG, GIF, WebP and BMP files begin with; no JSON does."""


@click.command()
@click.argument(
    "model", metavar="MODEL", help="NAME, NAME@ALIAS or NAME:VERSION in the store, or a model's http(s) URL."
)
@click.option(
    "--input",
    "source",
    required=True,
    metavar="FILE",
    help="JSON of a row, or of a body with instances or inputs, or a picture; - reads it from stdin.",
)
@store_option()
@service_options
@code_option
@click.option("--top-k", type=int, default=None, metavar="K", help="Answer with the K best classes by name.")
@click.option(
    "--threshold", type=float, default=None, metavar="SCORE", help="Answer with the classes that have this score."
)
def command(
    model: str,
    source: str,
    store: str,
    url: str,
    stack: str,
    headers: tuple[tuple[str, str], ...],
    code: Path | None,
    top_k: int | None,
    threshold: float | None,
) -> None:
    """Ask a model for one prediction: of a store, through the code that is deployed, or of a service."""
    from litelambda.commands.predict import open_service, predict

    more = {name: value for name, value in (("top_k", top_k), ("threshold", threshold)) if value is not None}
    service, name = open_service(model, url=url, stack=stack, headers=dict(headers))
    print_json(predict(name, _read(source), store=store, code=code, more=more, service=service))


def _read(source: str) -> Any:
    try:
        content = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    except OSError as error:
        raise click.BadParameter(f"{source} cannot be read: {error.strerror}", param_hint="--input") from error
    if content.startswith(_PICTURES):
        return {"b64": base64.b64encode(content).decode()}
    try:
        return json.loads(content)
    except ValueError as error:
        raise click.BadParameter(f"{source} is neither JSON nor a picture: {error}", param_hint="--input") from error
