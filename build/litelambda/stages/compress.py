"""Compress: make the trained model smaller, where the recipe asks for it, before it is quantized."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from litelambda.sections import Recipe
from litelambda.stages.backend import load_keras
from litelambda.stages.data import Dataset
from litelambda.stages.pruning import prune
from litelambda.stages.train import Progress, Trained


@dataclass(frozen=True)
class Compressed:
    """The model to quantize.

    Attributes:
        model: a Keras model; the trained one itself where the recipe compresses nothing.
        figures: per step ("pruning") what it did, for the report.
    """

    model: Any
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)


def compress(recipe: Recipe, trained: Trained, data: Dataset, progress: Progress) -> Compressed:
    """Apply the steps of the recipe's `compress` section to a copy of the trained model.

    Raises:
        TrainError: a step does not fit the model, or fine-tuning failed.
    """
    pruning = recipe.compress.pruning
    if pruning is None:
        return Compressed(trained.model)
    model = load_keras().models.clone_model(trained.model)
    model.set_weights(trained.model.get_weights())
    return Compressed(model, {"pruning": asdict(prune(model, pruning, recipe.train, data, progress))})
