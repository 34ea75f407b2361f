"""A recipe around any data section, for tests of what the data stage makes of it."""

from __future__ import annotations

from pathlib import Path

from litelambda.data.dataset import Dataset
from litelambda.recipe.load import load_recipe
from support.training import load_rows

_RECIPE = """
[model]
builder = "mlp"
[data]
{data}
[train]
loss = "mse"
[publish]
name = "tiny"
"""


def write_recipe(folder: Path, data: str) -> Path:
    """Write the recipe of a small MLP with this `data` section."""
    path = folder / "recipe.toml"
    path.write_text(_RECIPE.format(data=data))
    return path


def load(folder: Path, data: str, *overrides: str) -> Dataset:
    """Load the data of a recipe in `folder` with this `data` section."""
    return load_rows(load_recipe(write_recipe(folder, data), overrides))
