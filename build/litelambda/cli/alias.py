"""`litelambda alias`."""

from __future__ import annotations

import sys

import click

from litelambda.cli.options import store_option


def _share(text: str) -> tuple[int, float]:
    version, _, percent = text.partition("=")
    try:
        return int(version), float(percent.rstrip("%"))
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a share: expected VERSION=PERCENT, as in 8=10") from None


@click.command()
@click.argument("model", metavar="NAME", help="The model.")
@click.argument("alias", metavar="ALIAS", help="latest, stable, …")
@click.argument("version", metavar="VERSION", type=int, help="The version that answers its requests.")
@store_option()
@click.option(
    "--canary",
    multiple=True,
    type=_share,
    metavar="VERSION=PERCENT",
    help="Let this version answer so many percent of the alias' requests; may be given several times.",
)
@click.option(
    "--shadow",
    type=int,
    metavar="VERSION",
    help="Run this version beside the one that answers, and count where it decides otherwise.",
)
def command(
    model: str, alias: str, version: int, store: str, canary: tuple[tuple[int, float], ...], shadow: int | None
) -> None:
    """Point an alias of a model at one of its versions."""
    from litelambda.store.artifact_store import Store
    from litelambda.store.checks import check_store_exists

    check_store_exists(store)
    shares = dict(canary)
    Store(store).set_alias(model, alias, version, shares, shadow)
    others = [f"version {other} for {percent:g} % of requests" for other, percent in shares.items()]
    others += [f"version {shadow} as its shadow"] if shadow else []
    print(f"{model}: {alias} is now {', '.join([f'version {version}', *others])}", file=sys.stderr)
