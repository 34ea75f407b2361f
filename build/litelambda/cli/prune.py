"""`litelambda prune`."""

from __future__ import annotations

import sys

import click

from litelambda.cli.options import json_option, print_json, store_option


@click.command()
@click.argument("model", metavar="NAME", help="The model.")
@store_option()
@click.option(
    "--keep", type=click.IntRange(min=1), default=3, metavar="N", help="Keep the N newest versions, named or not."
)
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def command(model: str, store: str, keep: int, yes: bool, as_json: bool) -> None:
    """Delete a model's old versions, except those that an alias, a canary or a shadow names."""
    from litelambda.store.artifact_store import Store
    from litelambda.store.checks import check_store_exists
    from litelambda.store.prune import plan_prune, prune

    check_store_exists(store)
    opened = Store(store)
    plan = plan_prune(opened, model, keep)
    if not as_json:
        print(plan.describe(opened.url), flush=True)
    wanted = yes or (not as_json and sys.stdin.isatty() and _is_confirmed(model, len(plan.going)))
    if plan.going and wanted:
        prune(opened, plan, lambda gone: print(f"prune: {model}:{gone.number} is gone", file=sys.stderr))
    elif plan.going:
        print("prune: nothing was deleted: give --yes to delete these", file=sys.stderr)
    if as_json:
        print_json(plan.to_json(deleted=wanted and bool(plan.going)))


def _is_confirmed(model: str, count: int) -> bool:
    return count > 0 and click.confirm(f"Delete {count} of {model}'s versions?")
