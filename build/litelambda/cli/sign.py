"""`litelambda sign`."""

from __future__ import annotations

import sys

import click

from litelambda.cli.options import store_option


@click.command()
@click.argument("model", metavar="NAME[@ALIAS|:VERSION]", help="The version.")
@click.option("--key", required=True, metavar="KEY", help="A private key, PEM, or the ARN of a key of KMS.")
@store_option()
def command(model: str, key: str, store: str) -> None:
    """Sign a version that is published, instead of who signed it before."""
    from litelambda.store.artifact_store import Store
    from litelambda.store.checks import check_store_exists
    from litelambda.store.signatures import sign_version
    from litelambda.store.signing import open_signer

    check_store_exists(store)
    name, version = sign_version(Store(store), model, open_signer(key))
    print(f"{name}: version {version} is signed", file=sys.stderr)
