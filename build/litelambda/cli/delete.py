"""`litelambda delete`."""

from __future__ import annotations

import sys

import click

from litelambda.cli.options import stack_option
from litelambda.common.errors import UsageError


@click.command()
@stack_option
@click.option("--yes", is_flag=True, help="Do not ask.")
def command(stack: str, yes: bool) -> None:
    """Delete a stack from AWS; its buckets, with the models in them, stay."""
    from litelambda.stacks.delete import delete_stack, kept_resources
    from litelambda.stacks.stack import find_stack

    found = find_stack(stack)
    if found is None:
        print(f"delete: the stack {stack} does not exist", file=sys.stderr)
        return
    kept = kept_resources(found)
    print("\n".join([f"delete: stays: {each}" for each in kept] or ["delete: nothing of it stays"]), flush=True)
    if not yes:
        if not sys.stdin.isatty():
            raise UsageError(f"give --yes to delete the stack {stack} without being asked")
        if not click.confirm(f"Delete the stack {stack} in {found.region}?"):
            return
    delete_stack(found, lambda said: print(f"delete: {said}", flush=True))
    print(f"delete: the stack {stack} is gone", flush=True)
