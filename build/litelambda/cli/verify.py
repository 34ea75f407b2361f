"""`litelambda verify`."""

from __future__ import annotations

import sys

import click

from litelambda.cli.options import store_option


@click.command()
@click.argument("model", metavar="NAME[@ALIAS|:VERSION]", help="The version.")
@click.option(
    "--public-key",
    required=True,
    metavar="KEY",
    help="The key that it must be signed with: a PEM file, or the line that keygen prints.",
)
@store_option()
def command(model: str, public_key: str, store: str) -> None:
    """Check a version's signature, and every file of it, as a function with this key does."""
    from litelambda.store.artifact_store import Store
    from litelambda.store.checks import check_store_exists
    from litelambda.store.signatures import verify_version

    check_store_exists(store)
    name, version, num_files = verify_version(Store(store), model, public_key)
    print(f"{name}: version {version} is signed with this key, and its {num_files} files are those", file=sys.stderr)
