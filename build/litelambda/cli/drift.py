"""`litelambda drift`."""

from __future__ import annotations

from pathlib import Path

import click

from litelambda.cli.options import PATH, code_option, json_option, print_result, store_option


@click.command()
@click.argument(
    "source",
    metavar="SOURCE",
    help="Log lines of a function, a capture, or recent rows: .csv, .parquet, .npy or JSON Lines.",
)
@click.option(
    "--model", required=True, metavar="NAME[@ALIAS|:VERSION]", help="The version whose baseline they are compared with."
)
@store_option()
@code_option
@click.option("--html", type=PATH, metavar="FILE", help="Write a page with a chart of each feature.")
@json_option
def command(source: str, model: str, store: str, code: Path | None, html: Path | None, as_json: bool) -> None:
    """Compare recent requests or rows with a version's baseline; exits with 1 where they have drifted."""
    from litelambda.commands.drift import drift

    result = drift(source, model, store=store, code=code)
    if html is not None:
        from litelambda.common.extras import require_extra

        require_extra("build")
        from litelambda.commands.drift_page import make_page

        html.write_bytes(make_page(result))
    print_result(result, as_json=as_json)
    if result.has_drifted:
        click.get_current_context().exit(1)
