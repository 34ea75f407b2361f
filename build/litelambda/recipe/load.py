"""The recipe: what a build does, as a TOML file checked in full before anything heavy is imported.

Loading a recipe imports neither TensorFlow nor numpy, so a mistyped key answers at once, and all mistakes at once.
"""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from litelambda.common.errors import RecipeError
from litelambda.common.paths import RECIPES
from litelambda.common.wording import counted
from litelambda.recipe.compression import Compress
from litelambda.recipe.imports import ImportRecipe
from litelambda.recipe.messages import describe_problems
from litelambda.recipe.models import TextModel
from litelambda.recipe.sections import ArraysData, ImagesData, InteractionsData, Recipe, TableData, TextData
from litelambda.recipe.training import CROSS_ENTROPIES, Train

__all__ = ["ImportRecipe", "Recipe", "load_any_recipe", "load_recipe"]


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, override and check a recipe.

    Args:
        path: the TOML file, or the name of a recipe that ships with litelambda, such as "mnist_mlp".
        overrides: each `section.key=value`; the value is read as TOML, or as a plain string where it is not valid TOML.

    Raises:
        RecipeError: the file is missing or not valid TOML, or keys are wrong; the message names all of them.

    Example:
        >>> recipe = load_recipe("mnist_mlp", ["train.epochs=3", "publish.name=digits"])
        >>> recipe.train.epochs, recipe.publish.name
        (3, 'digits')
        >>> load_recipe("mnist_mlp", ["train.epoch=3"])
        Traceback (most recent call last):
        litelambda.common.errors.RecipeError: ...mnist_mlp.toml: 1 problem
          train.epoch: unknown key; choose ...; did you mean 'epochs'?
    """
    table, path = _overridden(path, overrides)
    if "import" in table:
        raise RecipeError(f"{path} imports a model, it does not train one: use `litelambda.import_model`")
    return _validate(table, path)


def load_any_recipe(path: str | Path, overrides: Sequence[str] = ()) -> tuple[Recipe | ImportRecipe, Path]:
    """Read, override and check a recipe that trains a model, or one that imports one.

    Args:
        path: see `load_recipe`.
        overrides: see there.

    Returns:
        The recipe, and the folder that its relative paths start at.

    Raises:
        RecipeError: as `load_recipe`.
    """
    table, path = _overridden(path, overrides)
    folder = path.resolve().parent
    if "import" not in table:
        return _validate(table, path), folder
    try:
        return ImportRecipe.model_validate(table), folder
    except ValidationError as error:
        raise _refused(path, describe_problems(error, ImportRecipe)) from None


def _overridden(path: str | Path, overrides: Sequence[str]) -> tuple[dict[str, Any], Path]:
    path = _find(Path(path))
    table = _read_toml(path)
    for override in overrides:
        _apply(table, override)
    return table, path


def _refused(path: Path, problems: Sequence[str]) -> RecipeError:
    lines = "\n".join(f"  {problem}" for problem in problems)
    return RecipeError(f"{path}: {counted(len(problems), 'problem')}\n{lines}")


def _find(path: Path) -> Path:
    """The file at a path, or else the recipe that ships under that name."""
    return path if path.is_file() else _shipped().get(str(path), path)


def _shipped() -> dict[str, Path]:
    return {path.stem: path for path in sorted(RECIPES.glob("*.toml"))}


def _validate(table: dict[str, Any], path: Path) -> Recipe:
    try:
        recipe = Recipe.model_validate(table)
    except ValidationError as error:
        problems = describe_problems(error, Recipe)
    else:
        recipe._folder = path.resolve().parent
        problems = _contradictions(recipe)
    if problems:
        raise _refused(path, problems)
    return recipe


def _contradictions(recipe: Recipe) -> list[str]:
    """Describe the settings that are valid alone but not together."""
    data, train, quantize, pruning = recipe.data, recipe.train, recipe.quantize, recipe.compress.pruning
    regression, multi_label = data.task == "regression", data.task == "multi_label"
    stopping, auto = train.early_stopping, recipe.compress.auto
    checks = [
        (
            regression and train.loss in CROSS_ENTROPIES,
            f"train.loss: {train.loss!r} is for classification; use 'mse' or 'mae' with data.task = 'regression'",
        ),
        (
            multi_label and train.loss != "binary_crossentropy",
            f"train.loss: data.task = 'multi_label' needs 'binary_crossentropy', not {train.loss!r}",
        ),
        (
            data.task == "classification" and isinstance(data, TableData) and isinstance(data.label, list),
            "data.label: several columns need data.task = 'multi_label' or 'regression'",
        ),
        (
            regression and data.labels is not None,
            "data.labels: needs data.task = 'classification'",
        ),
        (
            not regression and data.targets != "none",
            f"data.targets: {data.targets!r} needs data.task = 'regression'",
        ),
        (
            data.task != "classification" and isinstance(data, ImagesData),
            "data.task: data.format = 'images' needs data.task = 'classification'",
        ),
        (
            isinstance(data, TextData) and (data.normalize != "none" or data.reshape is not None),
            "data.normalize, data.reshape: data.format = 'text' has neither: its rows are numbers of tokens",
        ),
        (
            isinstance(recipe.model, TextModel) and not isinstance(data, TextData),
            f"model.builder: 'text' needs data.format = 'text', not {data.format!r}",
        ),
        (
            isinstance(data, TextData) and train.augmentation is not None,
            "train.augmentation: changes numbers, which data.format = 'text' does not have",
        ),
        (
            train.from_logits and train.loss not in CROSS_ENTROPIES,
            f"train.from_logits: needs a cross-entropy, but train.loss is {train.loss!r}",
        ),
        (
            quantize.io != "float32" and quantize.scheme != "int8",
            f"quantize.io: {quantize.io!r} needs quantize.scheme = 'int8'; use 'float32' with {quantize.scheme!r}",
        ),
        (
            bool(quantize.int4) and (quantize.scheme != "int8" or quantize.io == "uint8"),
            "quantize.int4: needs quantize.scheme = 'int8' and quantize.io = 'float32' or 'int8'",
        ),
        (
            regression and stopping is not None and stopping.monitor == "val_accuracy",
            "train.early_stopping.monitor: 'val_accuracy' needs data.task = 'classification'",
        ),
        (
            train.loss == "sparse_categorical_crossentropy" and bool(train.augmentation and train.augmentation.mixup),
            "train.augmentation.mixup: mixes targets, which train.loss = 'sparse_categorical_crossentropy' cannot "
            "express; use 'categorical_crossentropy'",
        ),
        (
            0 < train.epochs <= train.warmup_epochs,
            f"train.warmup_epochs: must be fewer than train.epochs, {train.epochs}",
        ),
        (
            data.task != "classification" and train.class_weights != "none",
            "train.class_weights: needs data.task = 'classification'",
        ),
        (
            auto is not None and bool(_steps(recipe)),
            f"compress.auto: chooses the steps itself; remove compress.{', compress.'.join(_steps(recipe))}",
        ),
        (auto is not None and data.task != "classification", "compress.auto: needs data.task = 'classification'"),
        (
            auto is not None and not recipe.data.validation_split and not isinstance(data, ArraysData),
            "compress.auto: needs validation rows: set data.validation_split",
        ),
        (
            pruning is not None and pruning.initial_sparsity >= pruning.final_sparsity,
            "compress.pruning.initial_sparsity: must be below final_sparsity",
        ),
    ]
    return [message for wrong, message in [*checks, *_of_recommendations(recipe)] if wrong]


def _of_recommendations(recipe: Recipe) -> list[tuple[bool, str]]:
    """What belongs together in a recipe of recommendations, and what such a recipe has no use for."""
    data, scheme, quantize = recipe.data, recipe.quantize.scheme, recipe.quantize
    interactions = isinstance(data, InteractionsData)
    two_tower = recipe.model.kind == "two_tower"
    together = "model.builder = 'two_tower', data.format = 'interactions', data.task = 'recommendation' and "
    parts = [two_tower, interactions, data.task == "recommendation", recipe.train.loss == "sampled_softmax"]
    if not any(parts):
        return []
    unused = [name for name in _UNUSED if getattr(data, name) != type(data).model_fields[name].default]
    trained = [name for name in _NOT_TRAINED if getattr(recipe.train, name) != Train.model_fields[name].default]
    return [
        (not all(parts), f"{together}train.loss = 'sampled_softmax' belong together"),
        (
            scheme == "int8" or quantize.io != "float32" or bool(quantize.int4),
            "quantize.scheme: recommendations need 'dynamic', 'float16' or 'float32', and quantize.io = 'float32': the "
            "256 values of an int8 score cannot rank a catalogue",
        ),
        (recipe.compress != Compress(), "compress: is not for recommendations; remove the section"),
        (bool(unused), f"data.{', data.'.join(unused)}: not for data.format = 'interactions'"),
        (bool(trained), f"train.{', train.'.join(trained)}: not for recommendations"),
    ]


_UNUSED = ("labels", "normalize", "targets", "reshape", "streaming")
_NOT_TRAINED = ("from_logits", "precision", "class_weights", "augmentation", "devices")


def _steps(recipe: Recipe) -> list[str]:
    """The compression steps that a recipe lists."""
    names = ("fold_batch_norm", "structured", "low_rank", "pruning", "clustering", "quantization_aware")
    return [name for name in names if getattr(recipe.compress, name)]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RecipeError(
            f"{path}: no such recipe: use a TOML file, or the name of one that ships: {', '.join(_shipped())}; "
            "`litelambda init` writes one"
        ) from None
    except OSError as error:
        raise RecipeError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path}: not a text file: {error}") from error
    except tomllib.TOMLDecodeError as error:
        raise RecipeError(f"{path}: not valid TOML: {error}") from error


def _apply(table: dict[str, Any], override: str) -> None:
    """Write one `section.key=value` into the parsed recipe."""
    dotted, equals, text = override.partition("=")
    keys = [key.strip() for key in dotted.split(".")]
    if not equals or not all(keys):
        raise RecipeError(f"--set {override!r}: expected section.key=value, such as train.epochs=3")
    for depth, key in enumerate(keys[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise RecipeError(f"--set {override!r}: {'.'.join(keys[:depth])} is a value, not a section")
    table[keys[-1]] = _toml_value(text.strip())


def _toml_value(text: str) -> Any:
    """Read a value as TOML; anything else (a bare word, a path, a date) is a string."""
    try:
        parsed = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        return text
    value = parsed["value"]
    return value if len(parsed) == 1 and isinstance(value, str | int | float | bool | list | dict) else text
