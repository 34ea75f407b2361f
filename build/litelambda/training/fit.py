"""Fit: the one way in which models are trained here, the same way every time for the same seed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import TrainError
from litelambda.common.progress import ReportProgress
from litelambda.data.dataset import Dataset
from litelambda.data.stored_rows import Split, StoredRows
from litelambda.keras_tools.backend import backend, backend_errors, load_keras, load_tensorflow
from litelambda.keras_tools.finite_checks import DIVERGED, check_weights
from litelambda.recipe.training import CROSS_ENTROPIES, Optimizer, Train
from litelambda.training.devices import for_devices, num_replicas
from litelambda.training.input_pipeline import read_errors_raised, sequential_batches, shuffled_batches
from litelambda.training.jax_interrupts import interrupts_between_steps
from litelambda.training.learning_rate import Schedule, learning_rate
from litelambda.training.mixed_precision import with_loss_scaling

_VALIDATION_BATCH = 32  # Keras's default batch size in `evaluate`, which arrays are cut into

History = dict[str, list[float]]
"""Per metric its value after each epoch."""


@dataclass(frozen=True)
class Objective:
    """What a model is trained towards.

    Attributes:
        loss: a Keras loss.
        metrics: what Keras reports besides the loss.
        train_y: what the loss compares the outputs of the training rows with.
        validation_y: the same for the validation rows, where there are any.
    """

    loss: Any
    metrics: list[Any]
    train_y: NDArray[Any]
    validation_y: NDArray[Any] | None


@dataclass(frozen=True)
class TrainingPlan:
    """One training, decided before it begins.

    Attributes:
        settings: the recipe's `train`: batch size, seed, augmentation, optimizer and loss.
        epochs: passes over the training rows; 0 leaves the model as it is.
        learning_rate: overrides the optimizer's.
        schedule: how the learning rate falls.
        warmup_epochs: epochs over which the learning rate rises before the schedule begins.
        callbacks: Keras callbacks, besides the progress report.
        objective: overrides the recipe's loss on the labels, and its class weights.
    """

    settings: Train
    epochs: int
    learning_rate: float | None = None
    schedule: Schedule = "constant"
    warmup_epochs: float = 0.0
    callbacks: Sequence[Any] = ()
    objective: Objective | None = None

    def make_optimizer(self, num_rows: int) -> Any:
        """The recipe's optimizer, its learning rate following the schedule over all epochs of `num_rows` rows."""
        steps_per_epoch = math.ceil(num_rows / self.settings.batch_size)
        rate = learning_rate(
            self.learning_rate or self.settings.optimizer.learning_rate,
            self.schedule,
            self.epochs * steps_per_epoch,
            round(self.warmup_epochs * steps_per_epoch),
        )
        return make_optimizer(self.settings.optimizer, rate)


def fit(model: Any, data: Dataset, plan: TrainingPlan, progress: ReportProgress) -> History:
    """Compile the model and train it.

    Args:
        model: the Keras model, changed in place.
        data: rows to train and to validate on.
        plan: how long, how fast and towards what.
        progress: called with the share that is done and what is being done.

    Raises:
        TrainError: Keras refused, or the loss or weights became NaN or infinite.
    """
    if not plan.epochs:
        return {}
    settings, validation = plan.settings, data.validation
    validation_x = None if validation is None else validation.x
    optimizer = with_loss_scaling(plan.make_optimizer(len(data.train)), model)
    objective = plan.objective or label_objective(model, settings, data)
    try:
        model.compile(optimizer=optimizer, loss=objective.loss, metrics=objective.metrics)
        _create_variables(model, objective)
        with read_errors_raised(data.train.x, validation_x), interrupts_between_steps() as interrupts:
            batches = shuffled_batches(data.train.x, objective.train_y, settings)
            history = model.fit(
                for_devices(batches, len(data.train), settings.batch_size),
                epochs=plan.epochs,
                shuffle=False,  # the batches are shuffled
                class_weight=class_weights(settings, data) if plan.objective is None else None,
                validation_data=None
                if validation is None
                else validation_batches(validation.x, objective.validation_y),
                callbacks=[*plan.callbacks, progress_callback(plan.epochs, progress), *interrupts],
                verbose=0,
            )
    except backend_errors() as error:
        raise TrainError(f"Keras could not train the model: {error}") from error
    check_weights(model, DIVERGED)  # the reported loss is of the weights before the last step
    return {name: [float(value) for value in values] for name, values in history.history.items()}


def _create_variables(model: Any, objective: Objective) -> None:
    """Create the variables of optimizer, loss and metrics, which Keras would leave to TensorFlow's first step.

    A function that creates variables is traced twice: for small models that takes longer than the training does.
    """
    output = model.outputs[0]
    if backend() != "tensorflow" or num_replicas() > 1:
        return  # Keras does it itself
    if len(model.outputs) > 1 or None in output.shape[1:]:
        return
    made, wanted = load_keras().ops.zeros((1, *output.shape[1:]), output.dtype), objective.train_y[:1]
    model.optimizer.build(model.trainable_variables)
    model.compute_loss(y=wanted, y_pred=made)
    model.compute_metrics(None, wanted, made)
    model.reset_metrics()


def validation_batches(x: Any, y: Any) -> Any:
    """Validation rows as Keras takes them, in batches of the size that it cuts arrays into."""
    number = num_replicas()
    if number == 1 and not isinstance(x, StoredRows):
        return x, y
    batch_size = _VALIDATION_BATCH * number
    return for_devices(sequential_batches(x, y, batch_size), len(x), batch_size)


def label_objective(model: Any, settings: Train, data: Dataset) -> Objective:
    """The recipe's loss on the labels."""
    return Objective(
        make_loss(settings),
        _metrics(settings, data),
        _targets(model, settings, data, data.train),
        None if data.validation is None else _targets(model, settings, data, data.validation),
    )


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and Keras's backend, and reset Keras's counter of layer names."""
    keras, tf = load_keras(), load_tensorflow()
    keras.backend.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def make_optimizer(settings: Optimizer, learning_rate: Any = None) -> Any:
    """Make the Keras optimizer of a recipe; `learning_rate`, a number or a Keras schedule, overrides the recipe's."""
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


def make_loss(settings: Train) -> Any:
    """Make the Keras loss of a recipe."""
    losses = load_keras().losses
    if settings.loss not in CROSS_ENTROPIES:
        return losses.get(settings.loss)
    class_name = "".join(word.capitalize() for word in settings.loss.split("_"))
    return getattr(losses, class_name)(from_logits=settings.from_logits)


def compile_with_recipe_loss(model: Any, settings: Train, data: Dataset) -> None:
    """Compile a model with Keras's own optimizer and loss: a saved model that names one of ours cannot be loaded."""
    model.compile(
        optimizer=make_optimizer(settings.optimizer), loss=make_loss(settings), metrics=_metrics(settings, data)
    )


def _metrics(settings: Train, data: Dataset) -> list[Any]:
    """What is measured after every epoch; of several labels, the share of right ones over rows and labels."""
    if data.multi_label:
        threshold = 0.0 if settings.from_logits else 0.5
        return [load_keras().metrics.BinaryAccuracy(name="accuracy", threshold=threshold)]
    return ["accuracy"] if data.labels is not None else []


def class_weights(settings: Train, data: Dataset) -> dict[int, float] | None:
    """The weight of each class in the loss; None where the recipe does not ask for any.

    Raises:
        TrainError: the recipe weighs a class that the data does not have.
    """
    weights = settings.class_weights
    if weights == "none" or data.labels is None:
        return None
    if isinstance(weights, dict):
        if unknown := weights.keys() - {*data.labels}:
            raise TrainError(
                f"train.class_weights names {', '.join(sorted(unknown))}; the classes are {', '.join(data.labels[:20])}"
            )
        return {number: weights.get(label, 1.0) for number, label in enumerate(data.labels)}
    counts = np.bincount(data.train.y, minlength=len(data.labels))
    return {number: len(data.train) / (len(counts) * max(1, int(count))) for number, count in enumerate(counts)}


def _targets(model: Any, settings: Train, data: Dataset, split: Split) -> NDArray[Any]:
    """What the loss compares the model's output with."""
    if data.labels is None or data.multi_label or settings.loss == "sparse_categorical_crossentropy":
        return split.y
    if model.outputs[0].shape[1] == 1:
        return split.y.astype(np.float32).reshape(-1, 1)
    one_hot: NDArray[np.float32] = np.eye(data.num_outputs, dtype=np.float32)[split.y]
    return one_hot


def progress_callback(epochs: int, progress: ReportProgress) -> Any:
    """A Keras callback that reports every epoch, and stops at a loss that is not finite."""

    def on_epoch_end(epoch: int, logs: dict[str, float]) -> None:
        if not math.isfinite(logs["loss"]):
            raise TrainError(
                f"the loss became {logs['loss']} in epoch {epoch + 1}: lower train.optimizer.learning_rate, "
                "or normalize the data (data.normalize)"
            )
        metrics = "  ".join(f"{name} {value:.4f}" for name, value in logs.items())
        progress((epoch + 1) / epochs, f"epoch {epoch + 1}/{epochs}  {metrics}")

    return load_keras().callbacks.LambdaCallback(on_epoch_end=on_epoch_end)
