"""What several subcommands share: their options, and how a result is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from litelambda.common.errors import UsageError
from litelambda.common.paths import DEFAULT_STORE, store_url

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "PATH",
    "access_policy_option",
    "code_option",
    "encrypt_option",
    "json_option",
    "print_json",
    "print_result",
    "service_options",
    "sign_option",
    "stack_option",
    "store_option",
]

PATH = click.Path(path_type=Path)


class _Printable(Protocol):
    def to_json(self) -> dict[str, Any]: ...

    def describe(self) -> str: ...


def _store(text: str) -> str:
    try:
        return store_url(text)
    except UsageError as error:
        raise click.BadParameter(str(error)) from None


def store_option(*, default: str | None = DEFAULT_STORE) -> Callable[[Any], Any]:
    """`--store`, a URL; one without a default tells a store that was given from none."""
    return click.option(
        "--store",
        type=_store,
        default=default,
        show_default=f"{DEFAULT_STORE}/ in the current directory",
        metavar="URL",
        help="A folder, s3://bucket/prefix, gs://bucket/prefix or az://container/prefix.",
    )


def _header(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name.strip():
        raise click.BadParameter(f"{text!r} is not a header: expected 'Name: value'")
    return name.strip(), value.strip()


def service_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """`--url`, `--stack` and `--header`, for `litelambda.commands.predict.open_service`."""
    options = (
        click.option("--url", default="", metavar="URL", help="Ask the service at this address, instead of a store."),
        click.option("--stack", default="", metavar="NAME", help="Ask this deployed stack, instead of a store."),
        click.option(
            "--header",
            "headers",
            multiple=True,
            type=_header,
            metavar="'NAME: VALUE'",
            help="Send this header to the service, such as a token; may be given several times.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


code_option = click.option(
    "--code",
    type=PATH,
    metavar="FILE.py",
    help="The function's own code: preprocess(rows), postprocess(outputs) or both.",
)
access_policy_option = click.option(
    "--access-policy",
    type=PATH,
    metavar="FILE.json",
    help="Who may do what with which model; the function asks for it where AccessPolicy=packaged.",
)
sign_option = click.option(
    "--sign", metavar="KEY", help="Sign the version: a private key, PEM, or the ARN of a key of KMS."
)
encrypt_option = click.option(
    "--encrypt", metavar="KEY", help="Encrypt the version: the ARN of a key of KMS, or a file of keygen --encryption."
)
stack_option = click.option(
    "--stack", default="litelambda", metavar="NAME", help="The stack's name, as `deploy --stack` has it."
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout, nothing else.")


def print_json(document: Any) -> None:
    """Print what `--json` asks for."""
    print(json.dumps(document, indent=2))


def print_result(result: _Printable, *, as_json: bool) -> None:
    """Print what a command returned: a JSON document, or some lines for a person."""
    if as_json:
        print_json(result.to_json())
    else:
        print(result.describe())
