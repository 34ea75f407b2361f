"""`litelambda decrypt`."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from litelambda.cli.options import PATH, store_option


@click.command()
@click.argument("model", metavar="NAME[@ALIAS|:VERSION]", help="The version.")
@click.argument("file", metavar="FILE", help="One of its files, such as model.keras.")
@click.option("--output", type=PATH, required=True, metavar="PATH", help="Where it goes; a file there is kept.")
@click.option("--key", default="", metavar="KEY", help="The key file it was encrypted with; not for a key of KMS.")
@store_option()
def command(model: str, file: str, output: Path, key: str, store: str) -> None:
    """Write a file of an encrypted version as it was before."""
    from litelambda.store.artifact_store import Store
    from litelambda.store.checks import check_store_exists
    from litelambda.store.signatures import decrypt_file
    from litelambda.store.signing import write_new

    check_store_exists(store)
    content = decrypt_file(Store(store), model, file, key)
    write_new(output, content, is_secret=True)
    print(f"{output}: {len(content):,} bytes", file=sys.stderr)
