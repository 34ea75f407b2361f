"""Train: fit the model to the training rows, the same way every time for the same seed."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.common.errors import TrainError
from litelambda.common.progress import ReportProgress
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import copy_model
from litelambda.recipe.models import ModelSection
from litelambda.recipe.training import Train
from litelambda.training.cluster import join, read_cluster
from litelambda.training.devices import device_scope
from litelambda.training.fit import History, TrainingPlan, compile_with_recipe_loss, fit, seed_everything
from litelambda.training.mixed_precision import in_precision
from litelambda.training.models import make_model
from litelambda.training.multi_host import fit_on_hosts


@dataclass(frozen=True)
class Trained:
    """A fitted model.

    Attributes:
        model: the Keras model.
        history: per metric ("loss", "val_accuracy", …) its value after each epoch.
    """

    model: Any
    history: History

    @property
    def num_epochs(self) -> int:
        """How many epochs it took; fewer than the recipe's where training stopped early."""
        return len(self.history.get("loss", []))


def train(section: ModelSection, settings: Train, data: Dataset, folder: Path, progress: ReportProgress) -> Trained:
    """Make a recipe's model and fit it.

    Args:
        section: the recipe's `model`.
        settings: the recipe's `train`.
        data: from the data stage.
        folder: the recipe's folder, where relative paths and the user's modules are looked for.
        progress: called with the share that is done and what is being done.

    Raises:
        TrainError: the model does not fit the data, Keras refused it, or the loss became NaN.
    """
    if settings.early_stopping is not None and data.validation is None:
        raise TrainError("train.early_stopping needs validation rows: set data.validation_split")
    cluster = read_cluster()
    strategy = join(cluster, settings) if cluster else None  # before TensorFlow runs anything else
    seed_everything(settings.seed)
    plan = TrainingPlan(
        settings,
        settings.epochs,
        schedule=settings.schedule,
        warmup_epochs=settings.warmup_epochs,
        callbacks=early_stopping(settings),
    )

    def make() -> Any:
        return make_model(section, settings, data, folder)

    if strategy is not None:
        return Trained(*fit_on_hosts(strategy, make, data, plan, progress))
    return _fit_here(make, data, plan, progress)


def _fit_here(make: Callable[[], Any], data: Dataset, plan: TrainingPlan, progress: ReportProgress) -> Trained:
    """Fit on the devices of this host; what comes out is a float32 model that belongs to none of them."""
    settings = plan.settings
    scope = device_scope(settings.devices)
    with scope:
        model = make()
        history = fit(model, data, plan, progress)
        if settings.warmup_epochs or settings.precision != "float32":
            compile_with_recipe_loss(model, settings, data)  # a copy, and a saved model, are compiled as the model was
    if settings.precision != "float32":
        model = in_precision(model, "float32")
    elif not isinstance(scope, nullcontext):
        model = copy_model(model)  # variables that devices share cannot be used outside the scope
    if getattr(model, "optimizer", None) is not None and not model.optimizer.built:
        model.optimizer.build(model.trainable_variables)  # Keras warns about an optimizer without variables on load
    return Trained(model, history)


def early_stopping(settings: Train) -> list[Any]:
    """The callback that stops a training early; none where the recipe does not ask for it."""
    stopping = settings.early_stopping
    if stopping is None:
        return []
    return [
        load_keras().callbacks.EarlyStopping(
            monitor=stopping.monitor,
            patience=stopping.patience,
            min_delta=stopping.min_delta,
            restore_best_weights=stopping.restore_best,
        )
    ]
