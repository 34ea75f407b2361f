"""`litelambda models`."""

from __future__ import annotations

import click

from litelambda.cli.options import json_option, print_json, store_option


@click.command()
@store_option()
@click.option("--report", metavar="NAME[@ALIAS|:VERSION]", help="Open what was measured when this one was built.")
@json_option
def command(store: str, report: str | None, as_json: bool) -> None:
    """List the models of a store."""
    from litelambda.store.catalogue import describe_models, list_models
    from litelambda.store.checks import check_store_exists

    check_store_exists(store)
    if report:
        from litelambda.store.open_report import open_report

        print(open_report(store, report))
        return
    models = list_models(store)
    if as_json:
        print_json(models)
    else:
        print(describe_models(models, store))
