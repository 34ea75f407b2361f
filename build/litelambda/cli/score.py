"""`litelambda score`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import click

from litelambda.cli.options import code_option, json_option, print_result, store_option
from litelambda.common.errors import UsageError
from litelambda.common.paths import DEFAULT_STORE
from litelambda.common.progress import open_reporter

if TYPE_CHECKING:
    from pathlib import Path

_STATE_MACHINE = "LITELAMBDA_STATE_MACHINE"


@click.command()
@click.argument(
    "source", metavar="INPUT", help="Path or s3:// URL of .jsonl, .csv, .parquet, .npy, .npz (or .gz), or a prefix/."
)
@click.argument("output", metavar="OUTPUT", help="Path or s3:// URL that ends with .jsonl, .csv or .npy, or a prefix/.")
@store_option(default=None)
@click.option("--model", required=True, metavar="NAME[@ALIAS|:VERSION]", help="The model to score with.")
@click.option("--on", type=click.Choice(["local", "aws"]), default="local", help="Where to run.")
@click.option("--state-machine", metavar="ARN", show_default=f"${_STATE_MACHINE}", help="The one that --on aws starts.")
@click.option("--workers", type=int, default=0, show_default="all", metavar="N", help="Cores to use here.")
@click.option(
    "--input-format",
    metavar="NAME",
    show_default="by the ending",
    help="One of jsonl, csv, parquet, npy, npz and images.",
)
@click.option("--output-format", metavar="NAME", show_default="by the ending", help="One of jsonl, csv and npy.")
@click.option(
    "--passthrough", metavar="A,B,…", show_default="all except inputs", help="Fields that the output repeats."
)
@click.option("--tolerate", type=float, default=0.01, metavar="SHARE", help="Share of bad rows to accept.")
@click.option("--resize", is_flag=True, help="Resize images that do not have the model's size.")
@click.option("--prepared", is_flag=True, help="Take the rows as the model's own values, not as raw ones.")
@click.option("--explain", type=int, metavar="K", help="Add the K strongest attributions of each row.")
@code_option
@click.option("--force", is_flag=True, help="Write over an output that exists.")
@json_option
def command(
    source: str,
    output: str,
    store: str | None,
    model: str,
    on: str,
    state_machine: str | None,
    workers: int,
    input_format: str | None,
    output_format: str | None,
    passthrough: str | None,
    tolerate: float,
    resize: bool,
    prepared: bool,
    explain: int | None,
    code: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Score a file, or all images of a prefix."""
    from litelambda.commands.score import make_job, score

    of_local = {"--force": force, "--workers": workers, "--store": store, "--code": code}
    _refuse_ignored(on, of_local, {"--state-machine": state_machine})
    described: dict[str, Any] = {
        "model": model,
        "input_format": input_format or "",
        "output_format": output_format or "",
        "passthrough": None if passthrough is None else [*filter(None, passthrough.split(","))],
        "tolerate": tolerate,
        "resize": resize,
        "prepared": prepared,
        "explain": explain,
    }
    if on == "aws":
        from litelambda.commands.score_on_aws import submit

        machine = state_machine or os.environ.get(_STATE_MACHINE, "")
        if not machine:
            raise UsageError(f"--on aws needs --state-machine ARN (an output of the stack), or {_STATE_MACHINE}")
        result = submit(make_job(source, output, **described), machine)
    else:
        reporter = open_reporter(terminal_only=as_json)
        result = score(
            source,
            output,
            store=store or DEFAULT_STORE,
            workers=workers,
            force=force,
            code=code,
            reporter=reporter,
            **described,
        )
    print_result(result, as_json=as_json)


def _refuse_ignored(on: str, of_local: dict[str, Any], of_aws: dict[str, Any]) -> None:
    """Refuse options that would be ignored where the job runs."""
    given, why = (of_aws, "nothing is submitted")
    if on == "aws":
        given, why = of_local, "the deployed function has a store, code and cores of its own, and writes over no output"
    if ignored := ", ".join(option for option, value in given.items() if value):
        raise UsageError(f"--on {on} does not take {ignored}: {why}")
