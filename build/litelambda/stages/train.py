"""Train: fit the model to the training rows, the same way every time for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.builders import build_model
from litelambda.errors import TrainError
from litelambda.sections import CROSS_ENTROPIES, Optimizer, Recipe, Train
from litelambda.stages.backend import load_keras, load_tensorflow
from litelambda.stages.data import Dataset
from litelambda.stages.sources import Split

Progress = Callable[[float, str], None]


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
    model = build_model(recipe, data)
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
    history = fit(model, recipe.train, data, recipe.train.epochs, callbacks, progress)
    return Trained(model, history)


def fit(
    model: Any,
    settings: Train,
    data: Dataset,
    epochs: int,
    callbacks: list[Any],
    progress: Progress,
    learning_rate: float | None = None,
) -> dict[str, list[float]]:
    """Compile the model and train it for some epochs.

    Args:
        model: the Keras model, changed in place.
        settings: loss, optimizer and batch size.
        data: rows to train on and to watch.
        epochs: how often to see every training row; 0 leaves the model as it is.
        callbacks: Keras callbacks beside the progress report.
        progress: told the share that is done and what is being done.
        learning_rate: instead of the optimizer's own.

    Returns:
        Per figure its value after each epoch.

    Raises:
        TrainError: Keras refused, or the loss became NaN or infinite.
    """
    keras, tf = load_keras(), load_tensorflow()
    if not epochs:
        return {}
    num_steps = epochs * math.ceil(len(data.train) / settings.batch_size)
    optimizer = make_optimizer(settings.optimizer, _scheduled(settings, learning_rate, num_steps))
    metrics = ["accuracy"] if data.labels is not None else []
    try:
        model.compile(optimizer=optimizer, loss=make_loss(settings), metrics=metrics)
        validation = data.validation and (data.validation.x, _targets(model, settings, data, data.validation))
        history = model.fit(
            _batches(data.train.x, _targets(model, settings, data, data.train), settings),
            epochs=epochs,
            shuffle=False,  # the batches are
            validation_data=validation,
            callbacks=[*callbacks, _watch(keras, epochs, progress)],
            verbose=0,
        )
    except (ValueError, TypeError, tf.errors.OpError) as error:
        raise TrainError(f"Keras could not train the model: {error}") from error
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def seed_everything(seed: int) -> None:
    """Make everything random in Python, NumPy and TensorFlow repeat itself, layer names included."""
    keras, tf = load_keras(), load_tensorflow()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def make_optimizer(settings: Optimizer, learning_rate: Any = None) -> Any:
    """Make the Keras optimizer of a recipe, with another learning rate, or a schedule of it, where one is given."""
    optimizers = load_keras().optimizers
    classes = {
        "sgd": optimizers.SGD,
        "momentum": optimizers.SGD,
        "rmsprop": optimizers.RMSprop,
        "adam": optimizers.Adam,
        "adamw": optimizers.AdamW,
    }
    arguments = settings.model_dump(exclude={"name"})
    if learning_rate is not None:
        arguments["learning_rate"] = learning_rate
    return classes[settings.name](**arguments)


def _scheduled(settings: Train, learning_rate: float | None, num_steps: int) -> Any:
    """The learning rate as the recipe's schedule has it: a number, or what Keras computes it with at every step."""
    rate = learning_rate or settings.optimizer.learning_rate
    if settings.schedule == "constant":
        return rate
    return load_keras().optimizers.schedules.CosineDecay(rate, num_steps)


def make_loss(settings: Train) -> Any:
    """Make the Keras loss of a recipe."""
    losses = load_keras().losses
    if settings.loss not in CROSS_ENTROPIES:
        return losses.get(settings.loss)
    class_name = "".join(word.capitalize() for word in settings.loss.split("_"))
    return getattr(losses, class_name)(from_logits=settings.from_logits)


def _batches(x: NDArray[Any], y: NDArray[Any], settings: Train) -> Any:
    """Batches in another order every epoch, the same orders for the same seed.

    Keras's own shuffling starts anew with every epoch once a seed is set: it gives the same order every time.
    """
    tf = load_tensorflow()
    with tf.device("CPU"):
        rows, targets = tf.constant(x), tf.constant(y)
    order = tf.data.Dataset.range(len(x)).shuffle(len(x), seed=settings.seed, reshuffle_each_iteration=True)
    return order.batch(settings.batch_size).map(lambda i: (tf.gather(rows, i), tf.gather(targets, i))).prefetch(2)


def _targets(model: Any, settings: Train, data: Dataset, split: Split) -> NDArray[Any]:
    """What the loss compares the model's output with."""
    if data.labels is None or settings.loss == "sparse_categorical_crossentropy":
        return split.y
    if model.outputs[0].shape[1] == 1:
        return split.y.astype(np.float32).reshape(-1, 1)
    one_hot: NDArray[np.float32] = np.eye(data.num_outputs, dtype=np.float32)[split.y]
    return one_hot


def _watch(keras: Any, epochs: int, progress: Progress) -> Any:
    """Report every epoch, and stop at a loss that is no number."""

    def on_epoch_end(epoch: int, logs: dict[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise TrainError(
                f"the loss became {logs['loss']} in epoch {epoch + 1}: lower train.optimizer.learning_rate, "
                "or normalise the data (data.normalize)"
            )
        figures = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
        progress((epoch + 1) / epochs, f"epoch {epoch + 1}/{epochs}  {figures}")

    return keras.callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
