"""`litelambda package`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from litelambda.cli.options import PATH, access_policy_option, code_option, json_option, print_json

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

    from litelambda.commands.image import ImageResult, ImageTarget
    from litelambda.commands.package import Architecture, Function, PackageResult, PartName


@click.command()
@click.option(
    "--target",
    type=click.Choice(["lambda-zip", "lambda-image", "container"]),
    default="lambda-zip",
    help="What runs it: a function from a zip or from an image, or any container platform.",
)
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
@click.option(
    "--output",
    type=PATH,
    required=True,
    metavar="DIR",
    help="Folder for the bundle and its zip, or for what an image is built of.",
)
@click.option(
    "--base", metavar="IMAGE", help="Of an image: what it builds on, which has Python 3.13; NAME@sha256:… pins it."
)
@click.option("--tag", metavar="NAME", help="Build the image with docker, under this name.")
@json_option
def command(
    target: ImageTarget | Literal["lambda-zip"],
    arch: Architecture,
    function: Function,
    parts: tuple[PartName, ...],
    code: Path | None,
    access_policy: Path | None,
    output: Path,
    base: str | None,
    tag: str | None,
    as_json: bool,
) -> None:
    """Make the deployment package, exactly what `sam build` ships; or an image, or what one is built of."""
    result: PackageResult | ImageResult
    if target == "lambda-zip":
        from litelambda.commands.package import package

        _refuse({"--base": base, "--tag": tag}, "an image: give --target lambda-image or container")
        result = package(arch, output, function, parts, code=code, access_policy=access_policy)
        line = f"{result.archive}: {result.size_bytes / 1e6:.2f} MB, SHA-256 {result.sha256}"
    else:
        from litelambda.commands.image import build_image, make_image

        _refuse({"--function": function == "score"}, "a zip: the batch function has no image")
        result = made = make_image(target, arch, output, parts, code=code, access_policy=access_policy, base=base)
        if tag:
            build_image(made, tag)
        line = f"{result.directory}: {result.unpacked_bytes / 1e6:.2f} MB on {result.base}, "
        line += f"built as {tag}" if tag else f"for `docker build {result.directory}`"
    if as_json:
        print_json(result.to_json())
        return
    print(line)
    for note in result.notes:
        print(f"litelambda: note: {note}", file=sys.stderr)


def _refuse(options: Mapping[str, object], what: str) -> None:
    """Refuse options of another target."""
    if given := [name for name, value in options.items() if value]:
        raise click.UsageError(f"{given[0]} is of {what}")
