"""`litelambda package`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from litelambda.cli.options import PATH, access_policy_option, code_option, json_option, print_json

if TYPE_CHECKING:
    from litelambda.commands.package import Architecture, Function, PartName


@click.command()
@click.option("--arch", type=click.Choice(["x86_64", "arm64"]), default="arm64", help="The function's architecture.")
@click.option(
    "--function",
    type=click.Choice(["predict", "score"]),
    default="predict",
    help="Predictions over HTTP, or batches.",
)
@click.option(
    "--with",
    "parts",
    type=click.Choice(["images", "text"]),
    multiple=True,
    help="What models need on top of numbers: images, the decoder of pictures; text, the tokenizers. Can be repeated.",
)
@code_option
@access_policy_option
@click.option("--output", type=PATH, required=True, metavar="DIR", help="Folder for the bundle and its zip.")
@json_option
def command(
    arch: Architecture,
    function: Function,
    parts: tuple[PartName, ...],
    code: Path | None,
    access_policy: Path | None,
    output: Path,
    as_json: bool,
) -> None:
    """Make the deployment package, exactly what `sam build` ships."""
    from litelambda.commands.package import package

    result = package(arch, output, function, parts, code=code, access_policy=access_policy)
    if as_json:
        print_json(result.to_json())
        return
    print(f"{result.archive}: {result.size_bytes / 1e6:.2f} MB, SHA-256 {result.sha256}")
    for note in result.notes:
        print(f"litelambda: note: {note}", file=sys.stderr)
