"""Fit: the one way in which models are trained here, the same way every time for the same seed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import TrainError
from litelambda.data.dataset import Dataset
from litelambda.data.stored_rows import Split, StoredRows
from litelambda.keras_tools.backend import backend_errors, load_keras, load_tensorflow
from litelambda.keras_tools.finite_checks import DIVERGED, check_weights
from litelambda.recipe.training import CROSS_ENTROPIES, Optimizer, Train
from litelambda.training.devices import for_devices, num_sharing
from litelambda.training.input_pipeline import batches_in_order, failures_of, row_batches
from litelambda.training.jax_interrupts import between_steps
from litelambda.training.learning_rate import Schedule, learning_rate
from litelambda.training.mixed_precision import keep_gradients

_WATCHED_AT_ONCE = 32  # Keras's own size of batches

Progress = Callable[[float, str], None]


@dataclass(frozen=True)
class Objective:
    """What a model is trained towards.

    Attributes:
        loss: a Keras loss.
        metrics: figures beside it.
        train_y: what the loss compares the outputs of the training rows with.
        validation_y: the same for the validation rows, where there are any.
    """

    loss: Any
    metrics: list[Any]
    train_y: NDArray[Any]
    validation_y: NDArray[Any] | None


@dataclass(frozen=True)
class Course:
    """How long and how fast to train.

    Attributes:
        epochs: how often to see every training row; 0 leaves the model as it is.
        learning_rate: instead of the optimizer's own.
        schedule: what becomes of the learning rate until the end.
        callbacks: Keras callbacks beside the progress report.
        objective: instead of the recipe's loss on the labels.
        warmup_epochs: how long the learning rate rises before the schedule begins.
    """

    epochs: int
    learning_rate: float | None = None
    schedule: Schedule = "constant"
    callbacks: Sequence[Any] = ()
    objective: Objective | None = None
    warmup_epochs: float = 0.0


def fit(model: Any, settings: Train, data: Dataset, course: Course, progress: Progress) -> dict[str, list[float]]:
    """Compile the model and train it.

    Args:
        model: the Keras model, changed in place.
        settings: loss, optimizer and batch size.
        data: rows to train on and to watch.
        course: how long, how fast and towards what.
        progress: told the share that is done and what is being done.

    Returns:
        Per figure its value after each epoch.

    Raises:
        TrainError: Keras refused, or the loss or weights became NaN or infinite.
    """
    if not course.epochs:
        return {}
    optimizer = keep_gradients(make_course_optimizer(settings, course, len(data.train)), model)
    objective = course.objective or plain_objective(model, settings, data)
    watched = None if data.validation is None else data.validation.x
    try:
        model.compile(optimizer=optimizer, loss=objective.loss, metrics=objective.metrics)
        with failures_of(data.train.x, watched), between_steps() as interrupts:
            history = model.fit(
                for_devices(
                    row_batches(data.train.x, objective.train_y, settings), len(data.train), settings.batch_size
                ),
                epochs=course.epochs,
                shuffle=False,  # the batches are
                class_weight=class_weights(settings, data) if course.objective is None else None,
                validation_data=watched if watched is None else to_watch(watched, objective.validation_y),
                callbacks=[*course.callbacks, watch(course.epochs, progress), *interrupts],
                verbose=0,
            )
    except backend_errors() as error:
        raise TrainError(f"Keras could not train the model: {error}") from error
    check_weights(model, DIVERGED)  # a loss is of the weights before its step: the last step's are not in it
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def to_watch(x: Any, y: Any) -> Any:
    """Validation rows as Keras takes them, in batches of the size that it cuts arrays into."""
    number = num_sharing()
    if number == 1 and not isinstance(x, StoredRows):
        return x, y
    batch_size = _WATCHED_AT_ONCE * number
    return for_devices(batches_in_order(x, y, batch_size), len(x), batch_size)


def plain_objective(model: Any, settings: Train, data: Dataset) -> Objective:
    """The recipe's loss on the labels."""
    return Objective(
        make_loss(settings),
        ["accuracy"] if data.labels is not None else [],
        _targets(model, settings, data, data.train),
        None if data.validation is None else _targets(model, settings, data, data.validation),
    )


def seed_everything(seed: int) -> None:
    """Make everything random in Python, NumPy and Keras's backend repeat itself, layer names included."""
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


def make_course_optimizer(settings: Train, course: Course, num_rows: int) -> Any:
    """The recipe's optimizer, with a learning rate that follows the course."""
    steps_per_epoch = math.ceil(num_rows / settings.batch_size)
    rate = learning_rate(
        course.learning_rate or settings.optimizer.learning_rate,
        course.schedule,
        course.epochs * steps_per_epoch,
        round(course.warmup_epochs * steps_per_epoch),
    )
    return make_optimizer(settings.optimizer, rate)


def make_loss(settings: Train) -> Any:
    """Make the Keras loss of a recipe."""
    losses = load_keras().losses
    if settings.loss not in CROSS_ENTROPIES:
        return losses.get(settings.loss)
    class_name = "".join(word.capitalize() for word in settings.loss.split("_"))
    return getattr(losses, class_name)(from_logits=settings.from_logits)


def class_weights(settings: Train, data: Dataset) -> dict[int, float] | None:
    """How much a row of each class counts, where the recipe asks for that."""
    if settings.class_weights == "none" or data.labels is None:
        return None
    counts = np.bincount(data.train.y, minlength=len(data.labels))
    return {number: len(data.train) / (len(counts) * max(1, int(count))) for number, count in enumerate(counts)}


def _targets(model: Any, settings: Train, data: Dataset, split: Split) -> NDArray[Any]:
    """What the loss compares the model's output with."""
    if data.labels is None or settings.loss == "sparse_categorical_crossentropy":
        return split.y
    if model.outputs[0].shape[1] == 1:
        return split.y.astype(np.float32).reshape(-1, 1)
    one_hot: NDArray[np.float32] = np.eye(data.num_outputs, dtype=np.float32)[split.y]
    return one_hot


def watch(epochs: int, progress: Progress) -> Any:
    """Report every epoch, and stop at a loss that is no number."""

    def on_epoch_end(epoch: int, logs: dict[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise TrainError(
                f"the loss became {logs['loss']} in epoch {epoch + 1}: lower train.optimizer.learning_rate, "
                "or normalise the data (data.normalize)"
            )
        figures = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
        progress((epoch + 1) / epochs, f"epoch {epoch + 1}/{epochs}  {figures}")

    return load_keras().callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
