"""`litelambda logs`."""

from __future__ import annotations

import re
import time

import click

from litelambda.cli.options import stack_option

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def _duration(text: str) -> int:
    found = re.fullmatch(r"([1-9]\d{0,5})([smhd])", text)
    if found is None:
        raise click.BadParameter(f"{text!r} is not a time: expected a number with s, m, h or d, as in 10m")
    return int(found[1]) * _UNITS[found[2]]


@click.command()
@stack_option
@click.option("--since", type=_duration, default="10m", metavar="TIME", help="How far back to begin: 30s, 10m, 2h, 1d.")
@click.option("--follow", "-f", is_flag=True, help="Continue with what is logged from now on, until Ctrl-C.")
@click.option("--errors", is_flag=True, help="Show lines of failures alone.")
@click.option("--json", "as_json", is_flag=True, help="Print the lines as they are, JSON Lines for the most part.")
def command(stack: str, since: int, follow: bool, errors: bool, as_json: bool) -> None:
    """Show what a deployed function logged, requests as a table."""
    from litelambda.stacks.logs import FAULTS, HEADER, describe_line, is_fault, read_log
    from litelambda.stacks.stack import read_stack

    function = read_stack(stack).function
    if not as_json:
        print(HEADER, flush=True)
    start_ms = int((time.time() - since) * 1000)
    for line in read_log(function, start_ms, pattern=FAULTS if errors else "", follow=follow):
        if not errors or is_fault(line):
            print(line.text if as_json else describe_line(line), flush=True)
