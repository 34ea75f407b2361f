"""`litelambda compare`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from litelambda.cli.options import PATH, json_option, print_json, store_option


@click.command()
@click.argument(
    "first", metavar="FIRST", help="NAME, NAME@ALIAS or NAME:VERSION in the store, or STORE/NAME/VERSION in another."
)
@click.argument("second", metavar="SECOND", help="The same, of the version to compare with it.")
@click.option(
    "--data", metavar="FILE", help="Rows to answer: a path or s3:// URL of a file that `litelambda score` reads."
)
@click.option("--recipe", metavar="RECIPE.toml", help="Answer the test rows of this recipe instead.")
@click.option(
    "--target",
    metavar="FIELD",
    help="The field of --data with the right answers; by default the predicted one.",
)
@click.option("--html", type=PATH, metavar="FILE.html", help="Write the comparison as a page.")
@store_option()
@json_option
def command(
    first: str,
    second: str,
    data: str | None,
    recipe: str | None,
    target: str | None,
    html: Path | None,
    store: str,
    as_json: bool,
) -> None:
    """Compare two versions of a model on the same rows: answers, latency, size."""
    from litelambda.commands.compare import compare
    from litelambda.commands.compare_output import describe, make_page, to_json

    found = compare(first, second, data=data, recipe=recipe, target=target, store=store)
    if html is not None:
        html.write_bytes(make_page(found))
        print(f"page: {html}", file=sys.stderr)
    if as_json:
        print_json(to_json(found))
    else:
        print(describe(found))
