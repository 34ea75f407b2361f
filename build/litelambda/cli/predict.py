"""`litelambda predict`."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from litelambda.cli.options import code_option, print_json, store_option


@click.command()
@click.argument(
    "model", metavar="MODEL", help="NAME, NAME@ALIAS or NAME:VERSION in the store, or a model's http(s) URL."
)
@click.option(
    "--input",
    "source",
    required=True,
    metavar="FILE",
    help="JSON of a row, or of a body with instances or inputs; - reads it from stdin.",
)
@store_option()
@code_option
@click.option("--top-k", type=int, default=None, metavar="K", help="Answer with the K best classes by name.")
@click.option(
    "--threshold", type=float, default=None, metavar="SCORE", help="Answer with the classes that have this score."
)
def command(model: str, source: str, store: str, code: Path | None, top_k: int | None, threshold: float | None) -> None:
    """Ask a model for one prediction, through the code that is deployed."""
    from litelambda.commands.predict import predict

    more = {name: value for name, value in (("top_k", top_k), ("threshold", threshold)) if value is not None}
    print_json(predict(model, _read(source), store=store, code=code, more=more))


def _read(source: str) -> Any:
    try:
        return json.loads(sys.stdin.read() if source == "-" else Path(source).read_text(encoding="utf-8"))
    except OSError as error:
        raise click.BadParameter(f"{source} cannot be read: {error.strerror}", param_hint="--input") from error
    except ValueError as error:
        raise click.BadParameter(f"{source} is not JSON: {error}", param_hint="--input") from error
