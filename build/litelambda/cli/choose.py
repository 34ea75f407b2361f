"""`litelambda choose`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from litelambda.cli.cost import load_options, make_case
from litelambda.cli.options import PATH, json_option, print_json


@click.command()
@load_options
@click.option("--memory", type=int, metavar="MB", help="Of the function.", show_default="as cost recommends")
@click.option("--markdown", type=PATH, metavar="FILE", help="Also write the table there, as documentation.")
@json_option
def command(memory: int | None, markdown: Path | None, as_json: bool, **options: Any) -> None:
    """Compare platforms for this artifact and load: performance, scalability, price, security, support."""
    from litelambda.costs.choose import make_choice
    from litelambda.costs.choose_output import describe, to_json, to_markdown

    choice = make_choice(make_case(**options), memory_mb=memory)
    if markdown is not None:
        markdown.write_text(to_markdown(choice) + "\n", encoding="utf-8")
    if as_json:
        print_json(to_json(choice))
    else:
        print(describe(choice))
