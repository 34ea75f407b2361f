"""`litelambda init`."""

from __future__ import annotations

import sys
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from litelambda.cli.options import PATH, json_option, print_json
from litelambda.common.archive_errors import ARCHIVE_ERRORS
from litelambda.common.errors import UsageError
from litelambda.common.interrupts import interrupts_noted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda.scaffold.project import Project

_MODELS = (".keras", ".h5", ".tflite", ".tar.gz", ".tgz", ".tar")
_OF_MODELS = ("saved_model.pb", "MLmodel", "model.weights.h5")  # in their folders
_WIDEST = 48  # of the guesses' column


@click.command()
@click.argument("folder", type=PATH, default=".", metavar="[DIR]", help="The project's folder.")
@click.option(
    "--data",
    type=PATH,
    metavar="PATH",
    help="Data to learn from: CSV, Parquet, .npz, JSON Lines, a folder or .zip of pictures, a folder of texts or .npy.",
)
@click.option(
    "--model",
    type=PATH,
    metavar="PATH",
    help="A .keras, .h5 or .tflite file, a SavedModel's folder, a .tar.gz or .zip file, MLflow's or a hub's folder.",
)
@click.option("--example", metavar="NAME", help="A recipe that ships, with its data, such as penguins.")
@click.option("--label", multiple=True, metavar="COLUMN", help="The column to predict; may be given several times.")
@click.option(
    "--task",
    type=click.Choice(["classification", "multi_label", "regression", "recommendation"]),
    show_default="what the data looks like",
    help="What is learned.",
)
@click.option(
    "--representative", type=PATH, metavar="DATA", help="With --model: .npy or .npz rows, to quantize to int8."
)
@click.option(
    "--labels", type=PATH, metavar="FILE", help="With --model: names of the classes, a JSON list or a line each."
)
@click.option("--name", metavar="NAME", show_default="from the name of the file", help="The model's name.")
@json_option
def command(
    folder: Path,
    data: Path | None,
    model: Path | None,
    example: str | None,
    label: tuple[str, ...],
    task: str | None,
    representative: Path | None,
    labels: Path | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Start a project: a recipe for your data or model, a test, a workflow; asks for what is not given."""
    given: dict[str, Any] = {"data": data, "model": model, "example": example}
    if len([each for each in given.values() if each is not None]) > 1:
        raise click.UsageError("give one of --data, --model and --example")
    with interrupts_noted():
        from litelambda.scaffold.inspect import inspect_project, shipped_examples
        from litelambda.scaffold.project import Given
        from litelambda.scaffold.write import check_free, project_files, write_project

        asks = sys.stdin.isatty() and sys.stderr.isatty() and not as_json
        if all(each is None for each in given.values()):
            given |= _ask_for_source(shipped_examples(), asks=asks)
        check_free(folder, ["recipe.toml", "README.md", "requirements.txt"])
        more: dict[str, Any] = {"label": label, "task": task, "name": name, "ask": _ask if asks else None}
        more |= {"representative": representative, "labels": labels}
        if sys.stderr.isatty() and not as_json:
            print(f"init: looking at {given['data'] or given['model'] or given['example']}", file=sys.stderr)
        project = inspect_project(Given(**given, **more), folder)
        files = project_files(project)
        write_project(folder, files, project.copies)
    written = sorted([*files, *project.copies])
    if as_json:
        print_json(_to_json(project, folder, written))
    else:
        print(_describe(project, folder, written))


def _to_json(project: Project, folder: Path, written: Sequence[str]) -> dict[str, Any]:
    return {
        "name": project.name,
        "task": project.task,
        "summary": project.summary,
        "guesses": [{"key": each.key, "value": each.value, "reason": each.reason} for each in project.found.guesses],
        "notes": project.found.notes,
        "folder": str(folder),
        "files": [*written],
    }


def _describe(project: Project, folder: Path, written: Sequence[str]) -> str:
    """What was found, what was guessed, and what to do next."""
    found = project.found
    lines = [f"{project.name}: {project.summary}"]
    if found.guesses:
        lines.append("guessed, to be changed in recipe.toml:")
        width = min(max(len(f"{each.key} = {each.value}") for each in found.guesses), _WIDEST)
        lines += [f"  {f'{each.key} = {each.value}':<{width}}  {each.reason}" for each in found.guesses]
    lines += [f"note: {note}" for note in found.notes]
    lines.append(f"wrote {', '.join(written)}")
    there = "" if folder.resolve() == Path.cwd() else f"cd {folder}\n  "
    lines.append(f"next:\n  {there}litelambda build\n  litelambda serve")
    return "\n".join(lines)


def _ask_for_source(examples: Sequence[str], *, asks: bool) -> dict[str, Any]:
    """What to start from, asked on a terminal."""
    if not asks:
        raise UsageError("say what to start from: --data PATH, --model PATH or --example NAME")
    text = f"Data, a saved model, or the name of an example ({', '.join(examples)})"
    source = click.prompt(text, err=True)
    if source in examples and not Path(source).exists():
        return {"example": source}
    path = Path(source).expanduser()
    is_model = path.name.endswith(_MODELS) or any((path / name).is_file() for name in _OF_MODELS)
    if path.suffix == ".zip":  # of pictures, or with a model
        with suppress(*ARCHIVE_ERRORS, OSError), zipfile.ZipFile(path) as archive:  # what reads it says what is wrong
            is_model = any(name.endswith((*_MODELS, *_OF_MODELS)) for name in archive.namelist())
    return {"model" if is_model else "data": path}


def _ask(question: str, default: str, answers: Sequence[str]) -> str:
    kind = click.Choice(answers) if answers else None
    answer: str = click.prompt(question, default=default or None, type=kind, err=True)
    return answer
