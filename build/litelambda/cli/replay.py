"""`litelambda replay`."""

from __future__ import annotations

from pathlib import Path

import click

from litelambda.cli.options import code_option, json_option, print_result, service_options, store_option


@click.command()
@click.argument("capture", metavar="CAPTURE", help="A file or folder of captured requests, or its s3:// URL.")
@click.option(
    "--model",
    required=True,
    metavar="MODEL",
    help="What to send them to: NAME, NAME@ALIAS or NAME:VERSION, or a model's http(s) URL.",
)
@store_option()
@service_options
@code_option
@click.option("--tolerance", type=click.FloatRange(0), default=0.0, metavar="X", help="Difference that is none.")
@click.option("--limit", type=click.IntRange(0), default=20, metavar="N", help="Changes to show, the largest first.")
@json_option
def command(
    capture: str,
    model: str,
    store: str,
    url: str,
    stack: str,
    headers: tuple[tuple[str, str], ...],
    code: Path | None,
    tolerance: float,
    limit: int,
    as_json: bool,
) -> None:
    """Send captured requests to another version; exits with 1 where it answers otherwise."""
    from litelambda.commands.predict import open_service
    from litelambda.commands.replay import replay

    service, name = open_service(model, url=url, stack=stack, headers=dict(headers))
    result = replay(capture, name, store=store, code=code, service=service, tolerance=tolerance, limit=limit)
    print_result(result, as_json=as_json)
    if not result.is_same:
        click.get_current_context().exit(1)
