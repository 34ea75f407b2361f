"""Write the tables of the pages, of the reference above all, from the code that they describe.

    .venv/bin/python docs/generate.py            # rewrites what has changed
    .venv/bin/python docs/generate.py --check    # changes nothing; exit code 1 where a page is out of date

A page holds prose and regions. What stands between `<!-- generated: NAME -->` and `<!-- end -->` is made here, by the
function of that name in `REGIONS`; everything else is written by hand.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import yaml

import api_tables
import litelambda
import recipe_tables
from litelambda.cli import main as command_line
from litelambda.common import errors as build_errors
from litelambda.costs.case import Case
from litelambda.costs.choose import make_choice
from litelambda.costs.choose_output import to_markdown
from litelambda.costs.load import SHAPES, Load
from litelambda.costs.measured import make_profile, read_documents
from litelambda.costs.prices import load_prices
from litelambda.publishing.manifest_format import ManifestDocument
from litelambda_serving import errors as serving_errors
from litelambda_serving.http import status_of
from litelambda_serving.manifest import Manifest
from litelambda_serving.objects import errors as object_errors
from litelambda_serving.openapi import document
from litelambda_serving.scoring import errors as scoring_errors
from litelambda_serving.scoring.settings import SCORING_SETTINGS
from litelambda_serving.server_settings import SERVER_SETTINGS
from litelambda_serving.settings import SETTINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROJECT = Path(__file__).resolve().parents[1]
PAGES = PROJECT / "docs"
PREDICT_TEMPLATE = PROJECT / "template.yaml"
SCORE_TEMPLATE = PROJECT / "infra" / "scoring.yaml"
ROLES_TEMPLATE = PROJECT / "infra" / "roles.yaml"
_REGION = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def settings() -> str:
    """The environment variables of the functions."""
    rows = [(f"`{s.name}`", _default(s.default), s.meaning) for s in SETTINGS]
    return table(("variable", "default", "meaning"), rows)


def _default(value: str | None) -> str:
    return "required" if value is None else f"`{value}`" if value else "empty"


def score_settings() -> str:
    """The environment variables that only the batch function has."""
    rows = [(f"`{s.name}`", _default(s.default), s.meaning) for s in SCORING_SETTINGS]
    return table(("variable", "default", "meaning"), rows)


def server_settings() -> str:
    """The environment variables of the ASGI application alone."""
    rows = [(f"`{s.name}`", _default(s.default), s.meaning) for s in SERVER_SETTINGS]
    return table(("variable", "default", "meaning"), rows)


def parameters(template: Path) -> str:
    """The parameters of a stack."""
    rows = [
        (f"`{name}`", _parameter_default(each), each["Description"].strip().replace(" - ", ": "))
        for name, each in _template(template)["Parameters"].items()
    ]
    return table(("parameter", "default", "meaning"), rows)


def _parameter_default(parameter: dict[str, Any]) -> str:
    default = parameter.get("Default")
    return _default(None if default is None else str(default))


def outputs(template: Path) -> str:
    """The outputs of a stack."""
    rows = [(f"`{name}`", each["Description"]) for name, each in _template(template)["Outputs"].items()]
    return table(("output", "meaning"), rows)


class _Loader(yaml.SafeLoader):
    """YAML whose tags (`!Ref`) mean nothing."""


_Loader.add_multi_constructor("!", lambda *_: None)


def _template(path: Path) -> dict[str, Any]:
    """A template, without what its tags (`!Ref`) stand for."""
    template: dict[str, Any] = yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506 - a safe one
    return template


def routes() -> str:
    """The routes that `/openapi.json` describes, for a model called `{model}`."""
    paths = document([(_manifest(), ["latest"])])["paths"]
    rows = [
        (f"`{method.upper()}`", f"`{path}`", operation["summary"])
        for path, operations in paths.items()
        for method, operation in operations.items()
    ]
    return table(("method", "path", "answer"), rows)


def _manifest() -> Manifest:
    """A manifest of the model `{model}`, with one input and one output."""
    tensor = {"name": "x", "dtype": "float32", "shape": [-1, 1]}
    fields = {
        "format_version": 1,
        "model": "{model}",
        "version": 1,
        "artifact": "model.tflite",
        "files": {"model.tflite": {"sha256": "0" * 64, "size_bytes": 1}},
        "default_signature": "serving_default",
        "signatures": {"serving_default": {"inputs": [tensor], "outputs": [tensor]}},
    }
    return Manifest.from_json(json.dumps(fields).encode())


def manifest_fields() -> str:
    """The fields of a manifest."""
    rows = [(f"`{name}`", meaning) for name, meaning in recipe_tables.meanings_of(ManifestDocument).items()]
    return table(("field", "meaning"), rows)


def http_errors() -> str:
    """What the service raises, and the status that a client sees."""
    rows = [(name, status_of(Exception.__new__(kind)), text) for name, kind, text in _tree(serving_errors.ServingError)]
    return table(("error", "status", "meaning"), rows)


def scoring_failures() -> str:
    """What batch scoring raises."""
    objects = [getattr(object_errors, name) for name in object_errors.__all__ if name.endswith("Error")]
    rows = [(name, text) for root in (scoring_errors.ScoringError, *objects) for name, _, text in _tree(root)]
    return table(("error", "meaning"), rows)


def exit_codes() -> str:
    """What the toolchain raises, and how the command ends."""
    rows = [(name, kind.exit_code, text) for name, kind, text in _tree(build_errors.LitelambdaError)]
    return table(("error", "exit code", "meaning"), rows)


def platforms() -> str:
    """The five questions of `litelambda choose`, for the example of the page on cost."""
    example = PAGES / "examples" / "mnist_mlp"
    profile = make_profile(read_documents([example / "cold.json", example / "warm.json", example / "batch.json"]))
    load = Load(2_000_000, SHAPES["office"], profile.event_bytes)
    return to_markdown(make_choice(Case(load, profile, load_prices())))


def _tree(root: type[Any], depth: int = 0) -> Iterator[tuple[str, type[Any], str]]:
    """An error and those below it, in the order of their definition."""
    yield f"{'— ' * depth}`{root.__name__}`", root, (root.__doc__ or "").partition("\n")[0]
    for kind in root.__subclasses__():
        if kind.__module__ == root.__module__:
            yield from _tree(kind, depth + 1)


def commands() -> str:
    """Every command with its arguments, as its `--help` has them."""
    return "\n\n".join(_command(click.Context(command_line.commands, info_name="litelambda")))


def _command(context: click.Context) -> Iterator[str]:
    command = context.command
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            if (subcommand := command.get_command(context, name)) is not None:
                yield from _command(click.Context(subcommand, context, info_name=name))
        return
    rows = [(f"`{_invocation(each, context)}`", _help(each)) for each in command.params]
    yield f"## {context.command_path}\n\n{command.help}\n\n{table(('argument', 'meaning'), rows)}"


def _invocation(parameter: click.Parameter, context: click.Context) -> str:
    metavar = parameter.metavar or parameter.make_metavar(context).strip("[]{}")
    if isinstance(parameter, click.Argument):
        return metavar
    return parameter.opts[0] + ("" if getattr(parameter, "is_flag", False) else f" {metavar}")


def _help(parameter: click.Parameter) -> str:
    text: str = getattr(parameter, "help", None) or ""
    if not isinstance(parameter, click.Option):
        return text
    if parameter.required:
        return f"{text} Required."
    shown = parameter.show_default if isinstance(parameter.show_default, str) else parameter.to_info_dict()["default"]
    return text if shown in (None, "", False, ()) else f"{text} Default: {shown}."


def table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    """A Markdown table."""
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines)


REGIONS: dict[str, Callable[[], str]] = {
    "settings": settings,
    "score-settings": score_settings,
    "server-settings": server_settings,
    "predict-parameters": lambda: parameters(PREDICT_TEMPLATE),
    "predict-outputs": lambda: outputs(PREDICT_TEMPLATE),
    "score-parameters": lambda: parameters(SCORE_TEMPLATE),
    "score-outputs": lambda: outputs(SCORE_TEMPLATE),
    "roles-parameters": lambda: parameters(ROLES_TEMPLATE),
    "routes": routes,
    "manifest": manifest_fields,
    "http-errors": http_errors,
    "scoring-errors": scoring_failures,
    "exit-codes": exit_codes,
    "commands": commands,
    "python-api": lambda: api_tables.public_api(litelambda),
    "recipe": lambda: recipe_tables.sections(table),
    "platforms": platforms,
}


def main() -> int:
    """Rewrite the pages that are out of date; with --check, only name them."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit code 1 where a page is out of date")
    parser.add_argument("folder", nargs="?", type=Path, default=PAGES, help="the pages (default: docs)")
    arguments = parser.parse_args()
    outdated, made = [], set()
    for page in sorted(arguments.folder.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        made |= {name for _, name, _ in _REGION.findall(text)}
        written = _REGION.sub(lambda match: f"{match[1]}{REGIONS[match[2]]()}\n{match[3]}", text)
        if written != text:
            outdated.append(page.name)
            if not arguments.check:
                page.write_text(written, encoding="utf-8")
    if missing := REGIONS.keys() - made:
        sys.exit(f"docs: no page of {arguments.folder} has a region for {', '.join(sorted(missing))}")
    if outdated:
        print(f"docs: {'out of date' if arguments.check else 'rewritten'}: {', '.join(outdated)}")
    return 1 if arguments.check and outdated else 0


if __name__ == "__main__":
    sys.exit(main())
