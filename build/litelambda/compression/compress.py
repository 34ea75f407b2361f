"""Compress: make the trained model smaller, where the recipe asks for it, before it is quantized.

The steps run in a fixed order: first what changes the model's shape (folding, structured pruning, low rank), then what
constrains its weights (pruning, then clustering or quantization-aware training, which keep pruning's zeros).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from litelambda.common.progress import ReportProgress
from litelambda.compression.batch_norm_folding import fold_batch_norm
from litelambda.compression.fine_tuning import TrainingContext
from litelambda.compression.low_rank import factorize
from litelambda.compression.pruning import prune
from litelambda.compression.structured_pruning import prune_units
from litelambda.compression.weight_grids import cluster, quantization_aware
from litelambda.keras_tools.copies import copy_model
from litelambda.keras_tools.layers import exclusion_reasons, kernels
from litelambda.recipe.compression import Compress

Figures = dict[str, Any]
Step = Callable[[Any, TrainingContext, ReportProgress], tuple[Any, Figures]]
"""From a model to a smaller one, and what was done for the report."""


@dataclass(frozen=True)
class Compressed:
    """The model to quantize.

    Attributes:
        model: a Keras model; the trained one itself where the recipe compresses nothing.
        figures: per step ("pruning", …) what it did, for the report.
        scheme: how to quantize it, where a search decided that; None for the recipe's own.
    """

    model: Any
    figures: dict[str, Figures] = field(default_factory=dict)
    scheme: Literal["int8", "dynamic", "float16", "float32"] | None = None


def compress(settings: Compress, model: Any, context: TrainingContext, progress: ReportProgress) -> Compressed:
    """Apply the steps of a recipe's `compress` section to a copy of a model.

    Args:
        settings: the section.
        model: the model to begin with; it is not changed.
        context: what the steps train on; masks in it hold for all of them.
        progress: called with the share that is done and what is being done.

    Raises:
        TrainError: a step does not fit the model, or fine-tuning failed.
    """
    steps = list(_steps(settings, model))
    if not steps:
        return Compressed(model)
    model, figures = copy_model(model), {}
    for number, (name, step) in enumerate(steps):

        def report(fraction: float, text: str, name: str = name, number: int = number) -> None:
            progress((number + fraction) / len(steps), f"{name}: {text}")

        model, figures[name] = step(model, context, report)
    return Compressed(model, figures)


def _steps(settings: Compress, model: Any) -> Iterator[tuple[str, Step]]:
    """The steps that the settings ask for, in their order."""
    if settings.exclude:
        kernels(model, settings.exclude, "compress")  # refuses names that the model does not have
    if settings.fold_batch_norm:
        yield "fold_batch_norm", _fold
    for name, function in _FUNCTIONS.items():
        if (section := getattr(settings, name)) is not None:
            yield name, _step(function, section, settings.exclude)


def _step(function: Callable[..., Any], section: Any, exclude: list[str]) -> Step:
    """A step that also excludes the layers that all steps exclude, as far as the model still has them."""

    def step(model: Any, context: TrainingContext, progress: ReportProgress) -> tuple[Any, Figures]:
        common = [name for name in exclude if name in kernels(model)]
        complete = section.model_copy(update={"exclude": sorted({*section.exclude, *common})})
        reasons = exclusion_reasons(model, complete.exclude)
        smaller, done = function(model, complete, context, progress)
        figures = asdict(done)
        return smaller, {**figures, "excluded": {**reasons, **figures.get("excluded", {})}}

    return step


def _in_place(function: Callable[..., Any]) -> Callable[..., Any]:
    def changed(model: Any, *arguments: Any) -> tuple[Any, Any]:
        return model, function(model, *arguments)

    return changed


def _fold(model: Any, context: TrainingContext, progress: ReportProgress) -> tuple[Any, Figures]:  # noqa: ARG001 - a `Step`
    folded, names = fold_batch_norm(model)
    return folded, {"folded": names}


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "structured": prune_units,
    "low_rank": factorize,
    "pruning": _in_place(prune),
    "clustering": _in_place(cluster),
    "quantization_aware": _in_place(quantization_aware),
}
