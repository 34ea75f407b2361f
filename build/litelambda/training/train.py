"""Train: fit the model to the training rows, the same way every time for the same seed."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from litelambda.common.errors import TrainError
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import copy_model
from litelambda.recipe.sections import Recipe
from litelambda.training.cluster import join, read_cluster
from litelambda.training.devices import sharing
from litelambda.training.fitting import Course, Progress, fit, make_loss, make_optimizer, seed_everything
from litelambda.training.mixed_precision import in_precision, make_model
from litelambda.training.multi_host import fit_together


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
    settings = recipe.train
    stopping = settings.early_stopping
    if stopping is not None and data.validation is None:
        raise TrainError("train.early_stopping needs validation rows: set data.validation_split")
    cluster = read_cluster()
    hosts = join(cluster, settings) if cluster else None  # before anything else of TensorFlow's runs
    seed_everything(settings.seed)
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
    course = Course(
        settings.epochs, schedule=settings.schedule, warmup_epochs=settings.warmup_epochs, callbacks=callbacks
    )
    if hosts is not None:
        return Trained(*fit_together(hosts, recipe, data, course, progress))
    scope = sharing(settings.devices)
    with scope:
        model = make_model(recipe, data)
        history = fit(model, settings, data, course, progress)
        if course.warmup_epochs or settings.precision != "float32":
            # A copy is compiled as its model was, and a saved model names its optimizer: let it be a plain one.
            model.compile(optimizer=make_optimizer(settings.optimizer), loss=make_loss(settings))
    if settings.precision != "float32":
        model = in_precision(model, "float32")
    elif not isinstance(scope, nullcontext):
        model = copy_model(model)  # variables that devices share cannot be used outside
    if getattr(model, "optimizer", None) is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)  # or Keras warns whoever loads the saved model
    return Trained(model, history)
