"""From what the user has to a project: looks at it, chooses a recipe, and says which files belong to the project."""

from __future__ import annotations

import os
import re
from pathlib import Path

from litelambda.commands.import_archive import ARCHIVE_SUFFIXES
from litelambda.common.errors import DataError, UsageError
from litelambda.common.paths import RECIPES
from litelambda.common.wording import counted
from litelambda.data.dataset import load_data
from litelambda.data.interactions import load_interactions
from litelambda.recipe.load import load_recipe
from litelambda.recipe.section_types import NAME_PATTERN
from litelambda.recipe.sections import InteractionsData
from litelambda.scaffold.data_sets import inspect_data
from litelambda.scaffold.project import Found, Given, Project
from litelambda.scaffold.recipe_text import recipe_text
from litelambda.scaffold.rows import examples_of
from litelambda.scaffold.saved_models import inspect_model

MOST_COPIED_BYTES = 50_000_000
"""Of a file or folder; larger ones stay where they are."""
_FILES = ("data.path", "import.path", "import.representative", "import.labels")


def inspect_project(given: Given, folder: Path) -> Project:
    """Look at what the user has.

    Args:
        given: what the user said, one of data, a model and an example among it.
        folder: of the project, which need not exist.

    Raises:
        UsageError: the user has to say more, or something that makes sense.
        LitelambdaError: what was given cannot be read.
    """
    if given.example is not None:
        return _from_example(given.example, given.name)
    source = given.data or given.model
    assert source is not None  # noqa: S101 - the caller checks what is given
    if not source.exists():
        raise UsageError(f"{source} does not exist")
    path = source.resolve()
    try:
        found, summary, examples = (inspect_data if given.data else inspect_model)(path, given)
    except OSError as error:
        raise DataError(f"{source} cannot be read: {error}") from error
    if given.name:
        found.put("publish.name", _checked_name(given.name))
    else:
        found.guess("publish.name", _name_of(path), "from the name of the file")
    copies = _place_files(found, folder.resolve())
    return Project(found.tables["publish"]["name"], recipe_text(found, summary), found, summary, examples, copies)


def shipped_examples() -> list[str]:
    """The names of the recipes that ship."""
    return sorted(path.stem for path in RECIPES.glob("*.toml"))


def _from_example(example: str, name: str | None) -> Project:
    """A recipe that ships, with its data."""
    if example not in shipped_examples():
        raise UsageError(f"unknown example {example!r}: choose one of {', '.join(shipped_examples())}")
    recipe, text = load_recipe(example), (RECIPES / f"{example}.toml").read_text(encoding="utf-8")
    source = recipe.resolve(recipe.data.path)
    text = text.replace(f'"{recipe.data.path}"', f'"data/{source.name}"').replace(f"build {example}", "build")
    if name:
        text = text.replace(f'name = "{example}"', f'name = "{_checked_name(name)}"')
    if isinstance(recipe.data, InteractionsData):
        interactions = load_interactions(recipe.data, recipe.folder)
        data, items = interactions.users, interactions.item_names
    else:
        data, items = load_data(recipe.data, recipe.folder), []
    examples = examples_of(data, whole=recipe.data.format == "npz", items=items)
    found = Found({"data": {"task": recipe.data.task, "format": recipe.data.format}, "publish": {}})
    summary = f"the example {example}: {data.describe()}"
    return Project(name or example, text, found, summary, examples, {f"data/{source.name}": source})


def _checked_name(name: str) -> str:
    if not re.match(NAME_PATTERN, name):
        raise UsageError(f"invalid model name {name!r}: use letters, digits, '_', '.' and '-'")
    return name


def _name_of(path: Path) -> str:
    """A model's name from that of its file or folder; a version's folder has that of the folder above it.

    >>> _name_of(Path("fruit salad.tar.gz")), _name_of(Path("fruit.tgz")), _name_of(Path("models/fruit/7"))
    ('fruit_salad', 'fruit', 'fruit')
    """
    if path.name.isdecimal():
        path = path.parent
    packed = next((suffix for suffix in ARCHIVE_SUFFIXES if path.name.endswith(suffix)), None)
    name = path.name.removesuffix(packed) if packed else path.stem
    return re.sub(r"[^A-Za-z0-9_-]+", "_", name).strip("_-")[:64] or "model"


def _place_files(found: Found, folder: Path) -> dict[str, Path]:
    """Give the recipe's files their places in the project.

    What is in the folder stays there; other files are copied, unless they are large.

    Raises:
        UsageError: the folder is in one that would be copied into it.
    """
    copies: dict[str, Path] = {}
    for key in _FILES:
        section, _, name = key.partition(".")
        if name not in found.tables.get(section, {}):
            continue
        path = Path(found.tables[section][name])
        if path.is_relative_to(folder):
            found.put(key, path.relative_to(folder).as_posix())
        elif path in folder.parents:
            raise UsageError(f"{folder} is in {path}, and would become part of it: name a folder outside of that")
        elif (size := _size(path)) <= MOST_COPIED_BYTES:
            place = f"{'data' if section == 'data' else 'model'}/{path.name}"
            copies[place] = path
            found.put(key, place)
        else:
            found.put(key, os.path.relpath(path, folder))
            found.notes.append(
                f"{path} stays where it is, since it has {counted(size, 'byte')}: the workflow has to fetch it"
            )
    return copies


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
