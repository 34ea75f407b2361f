"""`litelambda status`."""

from __future__ import annotations

import click

from litelambda.cli.options import json_option, print_result, stack_option


@click.command()
@stack_option
@json_option
def command(stack: str, as_json: bool) -> None:
    """Show what a deployed stack is now: version, model, requests, cold starts, errors and this month's cost."""
    from litelambda.stacks.status import read_status

    print_result(read_status(stack), as_json=as_json)
