"""`litelambda keygen`."""

from __future__ import annotations

from pathlib import Path

import click

from litelambda.cli.options import PATH
from litelambda.common.errors import UsageError


@click.command()
@click.argument("path", type=PATH, metavar="KEY.pem", help="Where the private key goes; KEY.pub.pem is its public one.")
@click.option("--encryption", is_flag=True, help="Make a key to encrypt with, which the function gets too.")
@click.option("--kms", metavar="ARN", help="Write the public key of this key of KMS; its private one stays there.")
def command(path: Path, kms: str | None, encryption: bool) -> None:
    """Make a key to sign versions with, and print what the function is to trust; or one to encrypt with."""
    from litelambda.store.signing import KmsSigner, is_kms_key, make_key, one_line, pem_of, write_new

    if encryption:
        from litelambda.publishing.encryption import make_key_file

        write_new(path, make_key_file(), is_secret=True)
        return
    public_path = path.with_suffix(".pub.pem")
    if kms is not None:
        if not is_kms_key(kms):
            raise UsageError(f"--kms {kms}: expected the ARN of a key, arn:aws:kms:REGION:ACCOUNT:key/ID")
        public = KmsSigner(kms).public_key()
    else:
        private, public = make_key()
        write_new(path, private, is_secret=True)
    write_new(public_path, pem_of(public), is_secret=False)
    print(f"ModelPublicKey={one_line(public)}")
