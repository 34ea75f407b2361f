"""Fine-tuning: training that follows a compression step, on the labels and, where the recipe says so, on a teacher.

Source: Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import numpy as np

from litelambda.common.progress import ReportProgress
from litelambda.data.dataset import Dataset
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.layers import Array
from litelambda.recipe.compression import Distillation
from litelambda.recipe.training import Train
from litelambda.training.fit import History, Objective, TrainingPlan, compile_with_recipe_loss, fit, label_objective
from litelambda.training.input_pipeline import predict


class TrainingSection(Protocol):
    """A section of the recipe's `compress` whose step trains."""

    @property
    def epochs(self) -> int:
        """Passes over the training rows."""

    @property
    def learning_rate(self) -> float | None:
        """Overrides the optimizer's."""


@dataclass(frozen=True)
class TrainingContext:
    """What all training steps of a compression share.

    Attributes:
        train: the recipe's `train` section: loss, optimizer, batch size, seed.
        data: rows to train on.
        distillation: the weight of the teacher's answers; None for labels alone.
        teacher: its outputs for the training and validation rows.
        masks: by layer name, where pruning left a weight: zeros stay zeros in all later steps.
        int4: the recipe's `quantize.int4`: the layers that ship in native int4.
    """

    train: Train
    data: Dataset
    distillation: Distillation | None = None
    teacher: tuple[Array, Array | None] | None = None
    masks: dict[str, Array] = field(default_factory=dict)
    int4: list[str] | Literal["auto"] = field(default_factory=list)

    @classmethod
    def with_teacher(
        cls,
        train: Train,
        data: Dataset,
        distillation: Distillation | None,
        model: Any,
        int4: list[str] | Literal["auto"],
    ) -> TrainingContext:
        """A context whose teacher is `model`, asked once for all its answers; without one if nothing is distilled."""
        if distillation is None:
            return cls(train, data, int4=int4)
        validation = predict(model, data.validation.x) if data.validation is not None else None
        return cls(train, data, distillation, (predict(model, data.train.x), validation), int4=int4)

    def sample(self, share: float) -> TrainingContext:
        """The same on a seeded share of the training rows, without validation rows and masks."""
        data, teacher = replace(self.data, validation=None), self.teacher and (self.teacher[0], None)
        if share < 1:
            order = np.random.default_rng(self.train.seed).permutation(len(self.data.train))
            rows = np.sort(order[: math.ceil(len(order) * share)])
            data = replace(data, train=self.data.train.take(rows))
            teacher = self.teacher and (self.teacher[0][rows], None)
        return replace(self, data=data, teacher=teacher, masks={})

    def num_steps(self, epochs: int) -> int:
        """Optimizer steps in so many epochs."""
        return epochs * math.ceil(len(self.data.train) / self.train.batch_size)


def fine_tune(
    model: Any,
    context: TrainingContext,
    section: TrainingSection,
    callbacks: Sequence[Any],
    progress: ReportProgress,
) -> History:
    """Train a model for some epochs, its learning rate falling along a cosine.

    Raises:
        TrainError: Keras refused, or the loss became NaN or infinite.
    """
    plan = TrainingPlan(
        context.train,
        section.epochs,
        section.learning_rate,
        "cosine",
        callbacks=callbacks,
        objective=objective(model, context),
    )
    history = fit(model, context.data, plan, progress)
    if plan.epochs:
        compile_with_recipe_loss(model, context.train, context.data)
    return history


def objective(model: Any, context: TrainingContext) -> Objective:
    """What to train towards: labels, or labels and the teacher's answers."""
    plain = label_objective(model, context.train, context.data)
    if context.distillation is None or context.teacher is None:
        return plain
    weight, data = context.distillation.weight, context.data
    answers, validation = context.teacher
    classes = data.num_outputs
    if data.labels is None or data.multi_label or model.outputs[0].shape[1] == 1:
        # These losses are linear in the target, or nearly: one mixed target replaces the sum of two losses.
        return Objective(plain.loss, plain.metrics, (1 - weight) * plain.train_y + weight * answers, plain.validation_y)
    one_hot = np.eye(classes, dtype=np.float32)
    validation_y = None
    if data.validation is not None and validation is not None:
        validation_y = np.concatenate([one_hot[data.validation.y], validation], axis=1)
    return Objective(
        _distillation_loss(context.distillation, classes, from_logits=context.train.from_logits),
        [_label_accuracy(classes)],
        np.concatenate([one_hot[data.train.y], answers], axis=1),
        validation_y,
    )


def _distillation_loss(settings: Distillation, classes: int, *, from_logits: bool) -> Any:
    """Cross-entropy with the labels plus, both softened by the temperature, with the teacher.

    Targets are (rows, 2 x classes): one-hot labels, then the teacher's outputs.
    """
    keras = load_keras()
    ops, temperature, weight = keras.ops, settings.temperature, settings.weight

    def soften(values: Any) -> Any:
        scores = values if from_logits else ops.log(ops.maximum(values, 1e-7))  # Keras's epsilon for probabilities
        return ops.softmax(scores / temperature, axis=-1)

    def distillation(targets: Any, outputs: Any) -> Any:
        labels, answers = targets[:, :classes], targets[:, classes:]
        hard = keras.losses.categorical_crossentropy(labels, outputs, from_logits=from_logits)
        soft = keras.losses.categorical_crossentropy(soften(answers), soften(outputs))
        return (1 - weight) * hard + weight * temperature**2 * soft  # section 2: gradients scale with 1 / T^2

    return distillation


def _label_accuracy(classes: int) -> Any:
    keras = load_keras()

    def accuracy(targets: Any, outputs: Any) -> Any:
        return keras.metrics.categorical_accuracy(targets[:, :classes], outputs)

    return accuracy
