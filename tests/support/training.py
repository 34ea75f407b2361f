"""Recipes trained without the rest of a build."""

from __future__ import annotations

from litelambda.common.progress import ReportProgress
from litelambda.compression.compress import Compressed, compress
from litelambda.compression.fine_tuning import TrainingContext
from litelambda.data.dataset import Dataset, load_data
from litelambda.recipe.compression import Compress
from litelambda.recipe.load import Recipe
from litelambda.training.train import Trained, train


def load_rows(recipe: Recipe) -> Dataset:
    """The data set of a recipe."""
    return load_data(recipe.data, recipe.folder)


def train_recipe(recipe: Recipe, data: Dataset | None = None, progress: ReportProgress = lambda *_: None) -> Trained:
    """The model of a recipe, fitted; to its own data unless given other."""
    return train(recipe.model, recipe.train, data or load_rows(recipe), recipe.folder, progress)


def compress_trained(recipe: Recipe, settings: Compress, trained: Trained, data: Dataset) -> Compressed:
    """A trained model after the steps of another `compress` section than the recipe's."""
    int4 = recipe.quantize.int4
    context = TrainingContext.with_teacher(recipe.train, data, settings.distillation, trained.model, int4)
    return compress(settings, trained.model, context, lambda *_: None)
