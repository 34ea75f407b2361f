"""Train: fit the model to the training rows, the same way every time for the same seed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from litelambda.builders import build_model
from litelambda.errors import TrainError
from litelambda.sections import Recipe
from litelambda.stages.backend import load_keras
from litelambda.stages.data import Dataset
from litelambda.stages.devices import sharing
from litelambda.stages.fitting import Course, Progress, fit, seed_everything
from litelambda.stages.layers import copy_model


@dataclass(frozen=True)
class Trained:
    """A fitted model.

    Attributes:
        model: the Keras model.
        history: per figure ("loss", "val_accuracy", …) its value after each epoch.
    """

    model: Any
    history: dict[str, list[float]]

    @property
    def num_epochs(self) -> int:
        """How many epochs it took; fewer than asked for where training stopped early."""
        return len(self.history.get("loss", []))


def train(recipe: Recipe, data: Dataset, progress: Progress) -> Trained:
    """Make the recipe's model and fit it.

    Args:
        recipe: the whole recipe.
        data: from the data stage.
        progress: told the share that is done and what is being done.

    Raises:
        TrainError: the model does not fit the data, Keras refused it, or the loss became NaN.
    """
    seed_everything(recipe.train.seed)
    stopping = recipe.train.early_stopping
    if stopping is not None and data.validation is None:
        raise TrainError("train.early_stopping needs validation rows: set data.validation_split")
    callbacks = []
    if stopping is not None:
        callbacks.append(
            load_keras().callbacks.EarlyStopping(
                monitor=stopping.monitor,
                patience=stopping.patience,
                min_delta=stopping.min_delta,
                restore_best_weights=stopping.restore_best,
            )
        )
    course = Course(recipe.train.epochs, schedule=recipe.train.schedule, callbacks=callbacks)
    scope = sharing(recipe.train.devices)
    with scope:
        model = build_model(recipe, data)
        history = fit(model, recipe.train, data, course, progress)
    # Variables that devices share cannot be used outside: the next stages get a plain model.
    return Trained(model if isinstance(scope, nullcontext) else copy_model(model), history)
