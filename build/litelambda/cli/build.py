"""`litelambda build`."""

from __future__ import annotations

import json
from pathlib import Path

import click

from litelambda.cli.options import (
    PATH,
    encrypt_option,
    json_option,
    print_json,
    print_result,
    sign_option,
    store_option,
)
from litelambda.common.interrupts import interrupts_noted
from litelambda.common.progress import open_reporter


@click.command()
@click.argument(
    "recipe",
    type=PATH,
    default="recipe.toml",
    metavar="[RECIPE.toml]",
    help="A recipe, or the name of one that ships, such as mnist_mlp.",
)
@store_option()
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Override a value of the recipe; may be given several times.",
)
@click.option(
    "--accept-worse",
    is_flag=True,
    help="Publish even if the version that an alias points at now does better on the same test rows.",
)
@sign_option
@encrypt_option
@json_option
def command(
    recipe: Path,
    store: str,
    overrides: tuple[str, ...],
    accept_worse: bool,
    sign: str | None,
    encrypt: str | None,
    as_json: bool,
) -> None:
    """Train, compress, quantize, verify and publish a model, as the folder's recipe.toml says, or another one."""
    with interrupts_noted():
        from litelambda.recipe.load import Recipe, load_any_recipe

        # Before TensorFlow: a typo answers at once.
        loaded, folder = load_any_recipe(recipe, (*overrides, *_encrypt(encrypt)))
        from litelambda.store.signing import open_signer

        signer = open_signer(sign) if sign else None
        if not isinstance(loaded, Recipe):
            if accept_worse:
                raise click.UsageError(
                    f"{recipe} imports a model, which is compared with its source: leave out --accept-worse"
                )
            from litelambda.commands.import_recipe import import_by_recipe

            reporter = open_reporter(terminal_only=as_json)
            print_result(import_by_recipe(loaded, folder, store, reporter, signer=signer), as_json=as_json)
            return
        from litelambda.commands.build import build, train_with_others
        from litelambda.training.cluster import read_cluster

        reporter, cluster = open_reporter(terminal_only=as_json), read_cluster()
        if cluster is None or cluster.is_chief:
            result = build(loaded, store, reporter, accept_worse=accept_worse, signer=signer)
            print_result(result, as_json=as_json)
            return
        train_with_others(loaded, reporter)
        if as_json:
            print_json({"model": loaded.publish.name, "published": False, "trained_as": cluster.name})
        else:
            print(f"{cluster.name} has trained with the others; {cluster.chief} publishes")


def _encrypt(key: str | None) -> list[str]:
    """The option as an override; a path is relative to the current directory, unlike those in a recipe."""
    if key is None:
        return []
    return [f"publish.encrypt={json.dumps(key if key.startswith('arn:') else str(Path(key).absolute()))}"]
