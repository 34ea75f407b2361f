"""Recovery: training that follows a compression step, on the labels and, where the recipe says so, on a teacher.

Source: Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.layers import Array
from litelambda.recipe.compression import Distillation
from litelambda.recipe.training import Train
from litelambda.training.fitting import Course, Objective, Progress, fit, make_loss, make_optimizer, plain_objective
from litelambda.training.input_pipeline import predict


class Trains(Protocol):
    """A section of the recipe with training of its own."""

    @property
    def epochs(self) -> int:
        """How often to see every training row."""

    @property
    def learning_rate(self) -> float | None:
        """Instead of the optimizer's own."""


@dataclass(frozen=True)
class Lessons:
    """All that the training steps of a compression have in common.

    Attributes:
        train: the recipe's `train` section: loss, optimizer, batch size, seed.
        data: rows to train on.
        distillation: how the teacher's answers count; None for labels alone.
        teacher: its outputs for the training and validation rows.
        keep: by layer name, where pruning left a weight: zeros stay zeros in all later steps.
        int4: as in the recipe's `quantize` section, the layers that ship in native int4.
    """

    train: Train
    data: Dataset
    distillation: Distillation | None = None
    teacher: tuple[Array, Array | None] | None = None
    keep: dict[str, Array] = field(default_factory=dict)
    int4: list[str] | Literal["auto"] = field(default_factory=list)

    def sample(self, share: float) -> Lessons:
        """The same on a seeded share of the training rows, and without validation rows to watch."""
        if share >= 1:
            teacher = self.teacher and (self.teacher[0], None)
            return replace(self, data=replace(self.data, validation=None), teacher=teacher, keep={})
        order = np.random.default_rng(self.train.seed).permutation(len(self.data.train))
        rows = np.sort(order[: math.ceil(len(order) * share)])
        train = self.data.train.take(rows)
        data = replace(self.data, train=train, validation=None)
        teacher = None if self.teacher is None else (self.teacher[0][rows], None)
        return replace(self, data=data, teacher=teacher, keep={})

    def num_steps(self, epochs: int) -> int:
        """Optimizer steps of so many epochs."""
        return epochs * math.ceil(len(self.data.train) / self.train.batch_size)


def make_lessons(train: Train, data: Dataset, distillation: Distillation | None, teacher: Any) -> Lessons:
    """Ask the teacher once for its answers, if there is to be one."""
    if distillation is None:
        return Lessons(train, data)
    answers = predict(teacher, data.train.x)
    validation = predict(teacher, data.validation.x) if data.validation is not None else None
    return Lessons(train, data, distillation, (answers, validation))


def recover(
    model: Any, lessons: Lessons, section: Trains, callbacks: Sequence[Any], progress: Progress
) -> dict[str, list[float]]:
    """Train a model for some epochs, its learning rate falling along a cosine.

    Returns:
        Per figure its value after each epoch.

    Raises:
        TrainError: Keras refused, or the loss became NaN or infinite.
    """
    course = Course(section.epochs, section.learning_rate, "cosine", callbacks, objective(model, lessons))
    history = fit(model, lessons.train, lessons.data, course, progress)
    if course.epochs:
        leave_compiled(model, lessons)
    return history


def leave_compiled(model: Any, lessons: Lessons) -> None:
    """Compile a model with the recipe's own loss, which a saved model names: Keras could not load one of ours."""
    optimizer, metrics = make_optimizer(lessons.train.optimizer), ["accuracy"] if lessons.data.labels else []
    model.compile(optimizer=optimizer, loss=make_loss(lessons.train), metrics=metrics)


def objective(model: Any, lessons: Lessons) -> Objective:
    """What to train towards: labels, or labels and the teacher's answers."""
    plain = plain_objective(model, lessons.train, lessons.data)
    if lessons.distillation is None or lessons.teacher is None:
        return plain
    share = lessons.distillation.weight
    answers, validation = lessons.teacher
    classes = lessons.data.num_outputs
    if lessons.data.labels is None or model.outputs[0].shape[1] == 1:
        # Both losses are linear in what they compare with, or nearly: one mixed target does for two.
        return Objective(plain.loss, plain.metrics, (1 - share) * plain.train_y + share * answers, plain.validation_y)
    one_hot = np.eye(classes, dtype=np.float32)
    data = lessons.data
    validation_y = None
    if data.validation is not None and validation is not None:
        validation_y = np.concatenate([one_hot[data.validation.y], validation], axis=1)
    return Objective(
        _distillation_loss(lessons, classes),
        [_label_accuracy(classes)],
        np.concatenate([one_hot[data.train.y], answers], axis=1),
        validation_y,
    )


def _distillation_loss(lessons: Lessons, classes: int) -> Any:
    """Cross-entropy with the labels plus, both softened by the temperature, with the teacher.

    Targets are (rows, 2 x classes): one-hot labels, then what the teacher gave.
    """
    keras = load_keras()
    ops, settings = keras.ops, lessons.distillation
    assert settings is not None  # noqa: S101 - for the type checker: only called where there is a teacher
    temperature, share, logits = settings.temperature, settings.weight, lessons.train.from_logits

    def soften(values: Any) -> Any:
        scores = values if logits else ops.log(ops.maximum(values, 1e-7))
        return ops.softmax(scores / temperature, axis=-1)

    def distillation(targets: Any, outputs: Any) -> Any:
        labels, answers = targets[:, :classes], targets[:, classes:]
        hard = keras.losses.categorical_crossentropy(labels, outputs, from_logits=logits)
        soft = keras.losses.categorical_crossentropy(soften(answers), soften(outputs))
        return (1 - share) * hard + share * temperature**2 * soft

    return distillation


def _label_accuracy(classes: int) -> Any:
    keras = load_keras()

    def accuracy(targets: Any, outputs: Any) -> Any:
        return keras.metrics.categorical_accuracy(targets[:, :classes], outputs)

    return accuracy
