"""Fit on several hosts: each has a part of every batch, and all have the same weights after every step.

Keras's own `fit` cannot train under TensorFlow's MultiWorkerMirroredStrategy, so the steps are taken here. What a step
does is what it does on one host: the mean over the whole batch, wherever its rows are. Figures, early stopping and what
comes out are those of a plain model that takes over the weights after every epoch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from litelambda.common.errors import TrainError
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import backend_errors, load_keras, load_tensorflow
from litelambda.keras_tools.finite_checks import DIVERGED, check_weights
from litelambda.recipe.sections import Recipe
from litelambda.recipe.training import Train
from litelambda.training.cluster import losses_of_hosts
from litelambda.training.fitting import (
    Course,
    Objective,
    Progress,
    class_weights,
    make_course_optimizer,
    make_optimizer,
    plain_objective,
    to_watch,
    watch,
)
from litelambda.training.input_pipeline import failures_of, row_batches
from litelambda.training.mixed_precision import in_precision, make_model

History = dict[str, list[float]]


def fit_together(
    strategy: Any, recipe: Recipe, data: Dataset, course: Course, progress: Progress
) -> tuple[Any, History]:
    """Make the recipe's model and train it with all hosts, each of which calls this.

    Args:
        strategy: from `litelambda.training.cluster.join`.
        recipe: the whole recipe, the same on every host.
        data: all rows, the same on every host.
        course: how long and how fast.
        progress: told the share that is done and what is being done.

    Returns:
        A plain model, and per figure its value after each epoch.

    Raises:
        TrainError: a host was lost, TensorFlow refused, or the loss became NaN or infinite.
    """
    settings = recipe.train
    with strategy.scope():
        model = make_model(recipe, data)
        optimizer = make_course_optimizer(settings, course, len(data.train))
        optimizer.build(model.trainable_variables)
    plain = in_precision(model, "float32")
    objective = plain_objective(plain, settings, data)
    plain.compile(optimizer=make_optimizer(settings.optimizer), loss=objective.loss, metrics=objective.metrics)
    plain.optimizer.build(plain.trainable_variables)  # or Keras warns whoever loads the saved model
    if not course.epochs:
        return plain, {}
    callbacks = load_keras().callbacks.CallbackList(
        [*course.callbacks, watch(course.epochs, progress)], add_history=True, model=plain, epochs=course.epochs
    )
    try:
        with losses_of_hosts(), failures_of(data.train.x, data.validation.x if data.validation else None):
            batches = _shared_batches(strategy, settings, data, objective)
            step = _make_step(strategy, model, optimizer, objective)
            callbacks.on_train_begin()
            for epoch in range(course.epochs):
                losses = [step(batch) for batch in batches]
                iter(batches)  # as Keras's `fit`, which leaves every other of the orders unused
                plain.set_weights(model.get_weights())
                callbacks.on_epoch_end(epoch, {"loss": _mean(losses), **_watched(plain, data, objective)})
                if plain.stop_training:
                    break
            callbacks.on_train_end()
    except backend_errors() as error:
        raise TrainError(f"the model could not be trained on several hosts: {error}") from error
    check_weights(plain, DIVERGED)
    found = plain.history.history
    return plain, {name: [float(value) for value in values] for name, values in found.items()}


def _shared_batches(strategy: Any, settings: Train, data: Dataset, objective: Objective) -> Any:
    """The very batches that one host would train on, each cut among all devices, and the share of each of its rows."""
    tf = load_tensorflow()
    weights = class_weights(settings, data) or {}
    importance = np.ones(len(data.train), np.float32)
    for label, weight in weights.items():
        importance[data.train.y == label] = weight
    devices = strategy.num_replicas_in_sync
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    batches = (
        row_batches(data.train.x, objective.train_y, settings, importance)
        .filter(lambda *parts: tf.shape(parts[0])[0] >= devices)  # no device is to be without rows
        .map(lambda x, y, share: (x, y, share / tf.cast(tf.shape(x)[0], tf.float32)))
    )
    return strategy.experimental_distribute_dataset(batches.with_options(options))


def _make_step(strategy: Any, model: Any, optimizer: Any, objective: Objective) -> Any:
    """A step of all hosts: from a batch of theirs to its number of rows and its loss."""
    tf, keras = load_tensorflow(), load_keras()
    row_losses = objective.loss.call if isinstance(objective.loss, keras.losses.Loss) else objective.loss

    def on_one_device(x: Any, y: Any, share: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(tf.cast(row_losses(y, model(x, training=True)), tf.float32) * share)
            if model.losses:  # penalties on weights, which every device has whole
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


def _watched(plain: Any, data: Dataset, objective: Objective) -> dict[str, float]:
    """Figures of the validation rows, which every host looks at whole: all come to the same end of training."""
    if data.validation is None:
        return {}
    rows = to_watch(data.validation.x, objective.validation_y)
    x, y = rows if isinstance(rows, tuple) else (rows, None)
    figures = plain.evaluate(x, y, return_dict=True, verbose=0)
    return {f"val_{name}": value for name, value in figures.items()}
