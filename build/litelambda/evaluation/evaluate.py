"""Evaluate: the float model and the artifact on the same full test split."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.reference import Reference
from litelambda.common.errors import GateError
from litelambda.common.progress import ReportProgress
from litelambda.conversion.quantize import Quantized
from litelambda.data.dataset import Dataset
from litelambda.data.stored_rows import Rows
from litelambda.keras_tools.finite_checks import check_outputs, count_not_finite
from litelambda.recipe.sections import Recipe
from litelambda.training.input_pipeline import predict

_BATCH = 64
_CHUNK = 1024  # rows between two reports of progress, fewer where they are large
_CHUNK_BYTES = 1 << 26

Metrics = dict[str, float]


@dataclass(frozen=True)
class Answers:
    """What a float model makes of the test split.

    Attributes:
        outputs: (rows, outputs).
        metrics: how right they are.
    """

    outputs: NDArray[Any]
    metrics: Metrics


@dataclass(frozen=True)
class Evaluated:
    """Figures of both models on the test split.

    Attributes:
        float_metrics: of the trained model, before anything was compressed.
        compressed_metrics: of the float model after compression; None where nothing was compressed.
        quantized_metrics: of the artifact.
        trivial_metrics: of the best answer that looks at no row: see `trivial_metrics`.
        agreement: share of rows on which trained model and artifact name the same class; None for regression.
        max_abs_difference: largest difference between their outputs.
        difference: between the artifact and the model that it was converted from; see `relative_difference`.
        num_examples: rows of the test split.
        confusion: how often each class (a row) was taken for each (a column) by the artifact; None for regression.
    """

    float_metrics: Metrics
    compressed_metrics: Metrics | None
    quantized_metrics: Metrics
    trivial_metrics: Metrics
    agreement: float | None
    max_abs_difference: float
    difference: float
    num_examples: int
    confusion: list[list[int]] | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's `metrics`."""
        compressed = {"compressed": self.compressed_metrics} if self.compressed_metrics else {}
        return {
            "float": self.float_metrics,
            **compressed,
            "quantized": self.quantized_metrics,
            "trivial": self.trivial_metrics,
            "agreement": self.agreement,
            "max_abs_difference": self.max_abs_difference,
            "relative_difference": self.difference,
            "num_examples": self.num_examples,
        }


def ask(model: Any, recipe: Recipe, data: Dataset) -> Answers:
    """Run a float model over the whole test split, before its outputs are in the targets' own units.

    Raises:
        TrainError: it answers with NaN or infinity.
    """
    outputs = predict(model, data.test.x)
    check_outputs(outputs, "test")
    if data.target_scaling is not None:
        outputs = data.target_scaling.undo(outputs)
    return Answers(outputs, measure(outputs, data, recipe.train.from_logits))


def evaluate(
    recipe: Recipe, data: Dataset, trained: Answers, compressed: Answers, quantized: Quantized, progress: ReportProgress
) -> Evaluated:
    """Run the artifact over the whole test split and compare it with the models that it comes from.

    Args:
        recipe: the whole recipe.
        data: from the data stage.
        trained: what the trained model answered.
        compressed: what the model answered that the artifact was made of; the very same where nothing was compressed.
        quantized: the artifact.
        progress: told the share that is done and what is being done.

    Raises:
        GateError: the artifact answers with NaN or infinity.
    """
    from_logits = recipe.train.from_logits
    outputs = run_artifact(quantized, data, progress)
    if bad := count_not_finite(outputs):
        raise GateError(
            f"the artifact answers {bad:,} of {len(outputs):,} test rows with NaN or infinity, where the float model "
            'answers with numbers; try quantize.scheme = "float32". Nothing was published'
        )
    agreement = None
    if data.labels is not None:
        same = predicted_classes(trained.outputs, from_logits) == predicted_classes(outputs, from_logits)
        agreement = float(np.mean(same))
    return Evaluated(
        float_metrics=trained.metrics,
        compressed_metrics=None if compressed is trained else compressed.metrics,
        quantized_metrics=measure(outputs, data, from_logits),
        trivial_metrics=trivial_metrics(data),
        agreement=agreement,
        max_abs_difference=float(np.max(np.abs(trained.outputs - outputs))),
        difference=relative_difference(compressed.outputs, outputs, per_output=data.labels is None),
        num_examples=len(data.test),
        confusion=confusion_matrix(outputs, data, from_logits),
    )


def confusion_matrix(outputs: NDArray[Any], data: Dataset, from_logits: bool) -> list[list[int]] | None:
    """How often each class of the test split (a row) was taken for each (a column); None for regression."""
    if data.labels is None:
        return None
    found = predicted_classes(outputs, from_logits)
    pairs = np.bincount(data.test.y * len(data.labels) + found, minlength=len(data.labels) ** 2)
    matrix: list[list[int]] = pairs.reshape(len(data.labels), -1).tolist()
    return matrix


def run_artifact(quantized: Quantized, data: Dataset, progress: ReportProgress) -> NDArray[Any]:
    """Outputs of the artifact for the whole test split, as real values."""
    return run_rows(Reference(quantized.artifact, num_threads=os.cpu_count() or 1), data.test.x, progress)


def run_rows(reference: Reference, rows: Rows, progress: ReportProgress = lambda *_: None) -> NDArray[Any]:
    """Outputs of an artifact of one input and output for all rows, as real values; some rows at a time."""
    name = reference.inputs[0].name
    batch = reference.safe_batch({name: rows[:_BATCH]}, min(_BATCH, len(rows)))
    chunk = max(_BATCH, min(_CHUNK, _CHUNK_BYTES // max(1, rows[:1].nbytes) // _BATCH * _BATCH))
    parts: list[NDArray[Any]] = []
    for start in range(0, len(rows), chunk):
        outputs = reference.run_real({name: rows[start : start + chunk]}, batch)
        parts.append(outputs[reference.outputs[0].name])
        progress((start + len(parts[-1])) / len(rows), f"{start + len(parts[-1]):,} of {len(rows):,} rows")
    return np.concatenate(parts)


def measure(outputs: NDArray[Any], data: Dataset, from_logits: bool) -> Metrics:
    """Acceptance outputs against the test split: accuracy for classes, mse and mae for values."""
    if data.labels is not None:
        return {"accuracy": float(np.mean(predicted_classes(outputs, from_logits) == data.test.y))}
    return _errors(outputs, data)


def trivial_metrics(data: Dataset) -> Metrics:
    """What the best answer that looks at no row is worth on the test split.

    That is the most frequent class of the training rows, or the mean of their targets.
    """
    if data.labels is not None:
        return {"accuracy": float(np.mean(data.test.y == np.bincount(data.train.y).argmax()))}
    mean = data.train.y.mean(axis=0, dtype=np.float64)
    return _errors(data.target_scaling.undo(mean) if data.target_scaling else mean, data)


def _errors(outputs: NDArray[Any], data: Dataset) -> Metrics:
    error = outputs.astype(np.float64) - data.test.y
    return {"mse": float(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}


def relative_difference(before: NDArray[Any], after: NDArray[Any], *, per_output: bool) -> float:
    """How far answers are apart: what 99 of 100 rows stay within, as a share of the range of `before`.

    A row's difference is that of its output that differs most. The largest of all rows would be that of the one row
    nearest to a class boundary.

    Args:
        before: (rows, outputs).
        after: the same rows answered by another model.
        per_output: every output has a range of its own, as values of different units have; else they share one.
    """
    axis = 0 if per_output else None
    distance = np.abs(before.astype(np.float64) - after)
    extent = before.max(axis=axis).astype(np.float64) - before.min(axis=axis)
    shares = np.divide(distance, extent, out=np.where(distance > 0, np.inf, 0.0), where=np.asarray(extent > 0))
    return float(np.quantile(shares.reshape(len(shares), -1).max(axis=1), 0.99, method="higher"))


def predicted_classes(outputs: NDArray[Any], from_logits: bool) -> NDArray[Any]:
    """The class each row of outputs stands for; a single output is the probability, or logit, of class 1."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > (0.0 if from_logits else 0.5)).astype(np.int64)
    classes: NDArray[Any] = outputs.argmax(axis=1)
    return classes
