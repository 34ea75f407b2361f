"""`litelambda deploy`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from litelambda.cli.options import access_policy_option, code_option, store_option

if TYPE_CHECKING:
    from pathlib import Path

    from litelambda.commands.package import Function


@click.command()
@click.argument(
    "words",
    metavar="[MODEL] [NAME=VALUE]…",
    nargs=-1,
    help="A model to publish and pin: NAME, NAME@ALIAS or NAME:VERSION; and parameters of the template to set.",
)
@store_option()
@click.option(
    "--function",
    type=click.Choice(["predict", "score"]),
    default="predict",
    help="The stack with the HTTP API, or the one that scores files.",
)
@code_option
@access_policy_option
@click.option("--stack", metavar="NAME", show_default="litelambda, or litelambda-scoring", help="The stack's name.")
@click.option(
    "--tag", "tags", multiple=True, metavar="KEY=VALUE", help="Tag everything in the stack; may be given several times."
)
@click.option("--dry-run", is_flag=True, help="Show the change set, and change nothing.")
def command(
    words: tuple[str, ...],
    store: str,
    function: Function,
    code: Path | None,
    access_policy: Path | None,
    stack: str | None,
    tags: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Package a function and deploy its stack to AWS, with a model; parameters that are not named keep their values."""
    from litelambda.commands.deploy import deploy

    models = [word for word in words[:1] if "=" not in word]
    deploy(
        function,
        words[len(models) :],
        stack,
        model="".join(models),
        store=store,
        code=code,
        access_policy=access_policy,
        tags=tags,
        dry_run=dry_run,
    )
