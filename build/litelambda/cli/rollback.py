"""`litelambda rollback`."""

from __future__ import annotations

import sys

import click

from litelambda.cli.options import json_option, print_result, stack_option


@click.command()
@click.argument("model", metavar="[NAME[@ALIAS]]", required=False, help="A model, to go back with it, not with code.")
@stack_option
@click.option("--to", type=int, metavar="VERSION", show_default="the one before", help="The version to go back to.")
@json_option
def command(model: str | None, stack: str, to: int | None, as_json: bool) -> None:
    """Go back: the live function to its version before, or an alias of a model to the model's version before."""
    from litelambda.stacks.rollback import roll_back_code, roll_back_model
    from litelambda.stacks.stack import read_stack
    from litelambda.store.artifact_store import Store

    found = read_stack(stack)
    moved = roll_back_code(found, to) if model is None else roll_back_model(Store(found.store), model, to)
    print_result(moved, as_json=as_json)
    if model is not None and found.parameters.get("ModelManifestSha256"):
        pinned = f"{found.parameters['ModelName']}:{found.parameters['ModelVersion']}"
        remedy = f"`litelambda rollback --stack {stack}` moves it"
        print(f"rollback: note: the function is pinned to {pinned} and stays there: {remedy}", file=sys.stderr)
