"""Training on several hosts: each takes a part of every batch, and all have the same weights after every step.

Keras's `fit` does not work under TensorFlow's MultiWorkerMirroredStrategy, so the training loop is here. A step does
what it does on one host: it takes the mean over the whole batch, wherever its rows are. Metrics, early stopping and the
result are those of a plain model that copies the weights after every epoch.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from litelambda.common.errors import TrainError
from litelambda.common.progress import ReportProgress
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import backend_errors, load_keras, load_tensorflow
from litelambda.keras_tools.finite_checks import DIVERGED, check_weights
from litelambda.recipe.training import Train
from litelambda.training.cluster import host_failures_explained
from litelambda.training.fit import (
    History,
    Objective,
    TrainingPlan,
    class_weights,
    compile_with_recipe_loss,
    label_objective,
    progress_callback,
    validation_batches,
)
from litelambda.training.input_pipeline import read_errors_raised, shuffled_batches
from litelambda.training.mixed_precision import in_precision


def fit_on_hosts(
    strategy: Any, make_model: Callable[[], Any], data: Dataset, plan: TrainingPlan, progress: ReportProgress
) -> tuple[Any, History]:
    """Make a model and train it on all hosts, each of which calls this.

    Args:
        strategy: from `litelambda.training.cluster.join`.
        make_model: makes the model in the strategy's scope, the same on every host.
        data: all rows, the same on every host.
        plan: how long and how fast.
        progress: called with the share that is done and what is being done.

    Returns:
        A plain model, and its history.

    Raises:
        TrainError: a host was lost, TensorFlow refused, or the loss became NaN or infinite.
    """
    with strategy.scope():
        model = make_model()
        optimizer = plan.make_optimizer(len(data.train))
        optimizer.build(model.trainable_variables)
    plain = in_precision(model, "float32")
    compile_with_recipe_loss(plain, plan.settings, data)
    plain.optimizer.build(plain.trainable_variables)  # Keras warns about an optimizer without variables on load
    if not plan.epochs:
        return plain, {}
    objective = label_objective(plain, plan.settings, data)
    validation_x = None if data.validation is None else data.validation.x
    callbacks = load_keras().callbacks.CallbackList(
        [*plan.callbacks, progress_callback(plan.epochs, progress)], add_history=True, model=plain, epochs=plan.epochs
    )
    try:
        with host_failures_explained(), read_errors_raised(data.train.x, validation_x):
            batches = _shared_batches(strategy, plan.settings, data, objective)
            step = _make_step(strategy, model, optimizer, objective)
            callbacks.on_train_begin()
            for epoch in range(plan.epochs):
                losses = [step(batch) for batch in batches]
                iter(batches)  # skips an order, as Keras's `fit` does: the order of every epoch is that of one host
                plain.set_weights(model.get_weights())
                callbacks.on_epoch_end(epoch, {"loss": _mean(losses), **_validation_metrics(plain, data, objective)})
                if plain.stop_training:
                    break
            callbacks.on_train_end()
    except backend_errors() as error:
        raise TrainError(f"the model could not be trained on several hosts: {error}") from error
    check_weights(plain, DIVERGED)
    found = plain.history.history
    return plain, {name: [float(value) for value in values] for name, values in found.items()}


def _shared_batches(strategy: Any, settings: Train, data: Dataset, objective: Objective) -> Any:
    """The batches of one host, each split among all devices, with the weight of each row in the mean."""
    tf = load_tensorflow()
    weights = class_weights(settings, data) or {}
    importance = np.ones(len(data.train), np.float32)
    for label, weight in weights.items():
        importance[data.train.y == label] = weight
    devices = strategy.num_replicas_in_sync
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = (
        shuffled_batches(data.train.x, objective.train_y, settings, importance)
        .filter(lambda *parts: tf.shape(parts[0])[0] >= devices)  # every device needs a row
        .map(lambda x, y, share: (x, y, share / tf.cast(tf.shape(x)[0], tf.float32)))
    )
    return strategy.experimental_distribute_dataset(batches.with_options(options))


def _make_step(strategy: Any, model: Any, optimizer: Any, objective: Objective) -> Any:
    """A step of all hosts, from a batch to its number of rows and its loss."""
    tf, keras = load_tensorflow(), load_keras()
    row_losses = objective.loss.call if isinstance(objective.loss, keras.losses.Loss) else objective.loss

    def on_one_device(x: Any, y: Any, share: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(row_losses(y, model(x, training=True)), tf.float32) * share)
            if model.losses:  # penalties on weights, of which every device has a copy
                loss += tf.add_n(model.losses) / strategy.num_replicas_in_sync
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return tf.cast(tf.shape(x)[0], tf.float32), loss

    @tf.function(reduce_retracing=True)  # type: ignore[untyped-decorator] # TensorFlow has no types
    def step(batch: Any) -> Any:
        rows, loss = strategy.run(on_one_device, args=batch)
        return strategy.reduce("SUM", rows, axis=None), strategy.reduce("SUM", loss, axis=None)

    return step


def _mean(losses: list[Any]) -> float:
    """Mean loss of all rows of an epoch."""
    rows, values = np.array([[float(rows), float(loss)] for rows, loss in losses]).T
    return float(np.average(values, weights=rows))


def _validation_metrics(plain: Any, data: Dataset, objective: Objective) -> dict[str, float]:
    """Metrics of the validation rows. Every host evaluates all of them, so that early stopping stops all at once."""
    if data.validation is None:
        return {}
    rows = validation_batches(data.validation.x, objective.validation_y)
    x, y = rows if isinstance(rows, tuple) else (rows, None)
    metrics = plain.evaluate(x, y, return_dict=True, verbose=0)
    return {f"val_{name}": value for name, value in metrics.items()}
