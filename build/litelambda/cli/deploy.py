"""`litelambda deploy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from litelambda.cli.options import access_policy_option, code_option

if TYPE_CHECKING:
    from pathlib import Path

    from litelambda.commands.package import Function


@click.command()
@click.argument("assignments", metavar="[NAME=VALUE]…", nargs=-1, help="Parameters of the template to set.")
@click.option(
    "--function",
    type=click.Choice(["predict", "score"]),
    default="predict",
    help="The stack with the HTTP API, or the one that scores files.",
)
@code_option
@access_policy_option
@click.option("--stack", metavar="NAME", show_default="litelambda, or litelambda-scoring", help="The stack's name.")
def command(
    assignments: tuple[str, ...],
    function: Function,
    code: Path | None,
    access_policy: Path | None,
    stack: str | None,
) -> None:
    """Package a function and deploy its stack to AWS; parameters that are not named keep their values."""
    from litelambda.commands.deploy import deploy

    deploy(function, assignments, stack, code=code, access_policy=access_policy)
