"""Compress: make the trained model smaller, where the recipe asks for it, before it is quantized.

The steps run in one order: what changes the model's shape first (folding, structured pruning, low rank), then what
constrains its weights (pruning, then clustering or quantization-aware training, which keep pruning's zeros).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from litelambda.compression.batch_norm_folding import fold_batch_norm
from litelambda.compression.fine_tuning import Lessons, make_lessons
from litelambda.compression.low_rank import factorise
from litelambda.compression.pruning import prune
from litelambda.compression.structured_pruning import thin_out
from litelambda.compression.weight_grids import cluster, quantization_aware
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.copies import copy_model
from litelambda.keras_tools.layers import kernels, left_out
from litelambda.recipe.compression import Compress
from litelambda.recipe.sections import Recipe
from litelambda.training.fitting import Progress
from litelambda.training.train import Trained

Figures = dict[str, Any]


@dataclass(frozen=True)
class Compressed:
    """The model to quantize.

    Attributes:
        model: a Keras model; the trained one itself where the recipe compresses nothing.
        figures: per step ("pruning", …) what it did, for the report.
        scheme: how to quantize it, where a search found that out; None for the recipe's own.
    """

    model: Any
    figures: dict[str, Figures] = field(default_factory=dict)
    scheme: Literal["int8", "dynamic", "float16", "float32"] | None = None


def compress(recipe: Recipe, trained: Trained, data: Dataset, progress: Progress) -> Compressed:
    """Apply the steps of the recipe's `compress` section to a copy of the trained model.

    Raises:
        TrainError: a step does not fit the model, or fine-tuning failed.
    """
    return apply_steps(recipe, recipe.compress, trained, data, progress)


def apply_steps(recipe: Recipe, settings: Compress, trained: Trained, data: Dataset, progress: Progress) -> Compressed:
    """As `compress`, with other settings than the recipe's own."""
    if not list(_steps(settings, trained.model)):
        return Compressed(trained.model)
    lessons = make_lessons(recipe.train, data, settings.distillation, trained.model)
    lessons = replace(lessons, int4=recipe.quantize.int4)
    return go_on(settings, trained.model, lessons, progress)


def go_on(settings: Compress, start: Any, lessons: Lessons, progress: Progress) -> Compressed:
    """Apply steps to a copy of a model that need not be the trained one.

    Args:
        settings: which steps.
        start: the model to begin with.
        lessons: what to train on; where they keep zeros, all steps do.
        progress: told the share that is done and what is being done.
    """
    steps = list(_steps(settings, start))
    model, figures = copy_model(start), {}
    for number, (name, step) in enumerate(steps):

        def report(fraction: float, text: str, name: str = name, number: int = number) -> None:
            progress((number + fraction) / len(steps), f"{name}: {text}")

        model, figures[name] = step(model, lessons, report)
    return Compressed(model, figures)


Step = Callable[[Any, Lessons, Progress], tuple[Any, Figures]]


def _steps(settings: Compress, model: Any) -> Iterator[tuple[str, Step]]:
    """The steps that the settings ask for, each from (model, lessons, progress) to (model, figures)."""
    if settings.exclude:
        kernels(model, settings.exclude, "compress")  # refuses names that the model does not have
    if settings.fold_batch_norm:
        yield "fold_batch_norm", _fold
    for name, function in _RESHAPING.items():
        if (section := getattr(settings, name)) is not None:
            yield name, _step(function, section, settings.exclude)
    for name, function in _CONSTRAINING.items():
        if (section := getattr(settings, name)) is not None:
            yield name, _step(_in_place(function), section, settings.exclude)


def _step(function: Callable[..., Any], section: Any, exclude: list[str]) -> Step:
    """A step that leaves alone what all steps do, as far as the model still has it."""

    def step(model: Any, lessons: Lessons, progress: Progress) -> tuple[Any, Figures]:
        common = [name for name in exclude if name in kernels(model)]
        complete = section.model_copy(update={"exclude": sorted({*section.exclude, *common})})
        reasons = left_out(model, complete.exclude)
        smaller, done = function(model, complete, lessons, progress)
        figures = asdict(done)
        return smaller, {**figures, "excluded": {**reasons, **figures.get("excluded", {})}}

    return step


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def changed(model: Any, *arguments: Any) -> tuple[Any, Any]:
        return model, function(model, *arguments)

    return changed


def _fold(model: Any, lessons: Lessons, progress: Progress) -> tuple[Any, Figures]:  # noqa: ARG001 - a `Step`
    folded, names = fold_batch_norm(model)
    return folded, {"folded": names}


_RESHAPING: dict[str, Callable[..., Any]] = {"structured": thin_out, "low_rank": factorise}
_CONSTRAINING: dict[str, Callable[..., Any]] = {
    "pruning": prune,
    "clustering": cluster,
    "quantization_aware": quantization_aware,
}
