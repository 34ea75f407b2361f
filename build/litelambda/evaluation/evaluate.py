"""Evaluate: the float model and the artifact on the same full test split."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
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
from litelambda.training.input_pipeline import predict

_BATCH = 64
_CHUNK = 1024  # rows between two reports of progress, fewer where they are large
_CHUNK_BYTES = 1 << 26

Metrics = dict[str, float]


@dataclass(frozen=True)
class FloatAnswers:
    """A float model's answers to the test split.

    Attributes:
        outputs: (rows, outputs).
        metrics: see `measure`.
        confusion: see `confusion_matrix`.
    """

    outputs: NDArray[Any]
    metrics: Metrics
    confusion: list[list[int]] | None


@dataclass(frozen=True)
class Evaluated:
    """Figures of both models on the test split.

    Attributes:
        float_metrics: of the trained model, before anything was compressed.
        compressed_metrics: of the float model after compression; None where nothing was compressed.
        quantized_metrics: of the artifact.
        trivial_metrics: of the best constant answer: see `trivial_metrics`.
        agreement: share of rows on which trained model and artifact name the same class; None for regression.
        max_abs_difference: largest difference between their outputs.
        difference: between the artifact and the model that it was converted from; see `relative_difference`.
        num_examples: rows of the test split.
        confusion: the artifact's, see `confusion_matrix`.
        outputs: the artifact's answers to the test split, (rows, outputs).
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
    outputs: NDArray[Any] = field(default_factory=lambda: np.empty((0, 0)), repr=False, compare=False)

    def describe(self) -> str:
        """Each figure of both models, in a line."""
        before, after = self.float_metrics, self.quantized_metrics
        return ", ".join(f"{name} {before[name]:.4g} -> {after[name]:.4g}" for name in before)

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


def evaluate_float(model: Any, data: Dataset, from_logits: bool) -> FloatAnswers:
    """Run a float model over the whole test split, before its outputs are in the targets' own units.

    Args:
        model: its outputs are in the units that it was trained on.
        data: from the data stage.
        from_logits: whether its outputs are logits.

    Raises:
        TrainError: it answers with NaN or infinity.
    """
    outputs = predict(model, data.test.x)
    check_outputs(outputs, "test")
    if data.target_scaling is not None:
        outputs = data.target_scaling.undo(outputs)
    metrics = measure(outputs, data, from_logits)
    return FloatAnswers(outputs, metrics, confusion_matrix(outputs, data, from_logits))


def evaluate(
    data: Dataset,
    trained: FloatAnswers,
    compressed: FloatAnswers,
    quantized: Quantized,
    from_logits: bool,
    progress: ReportProgress,
) -> Evaluated:
    """Run the artifact over the whole test split and compare it with the models that it comes from.

    Args:
        data: from the data stage.
        trained: the trained model's answers.
        compressed: those of the model that the artifact was made from; the same object where nothing was compressed.
        quantized: the artifact.
        from_logits: whether the outputs are logits.
        progress: called with the share that is done and a text.

    Raises:
        GateError: the artifact answers with NaN or infinity.
    """
    outputs = run_artifact(quantized, data, progress)
    if bad := count_not_finite(outputs):
        raise GateError(
            f"the artifact answers {bad:,} of {len(outputs):,} test rows with NaN or infinity, where the float model "
            'answers with numbers: set quantize.scheme = "float32". Nothing was published'
        )
    agreement = None
    if data.labels is not None:
        answers = predicted_labels if data.multi_label else predicted_classes
        same = answers(trained.outputs, from_logits) == answers(outputs, from_logits)
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
        outputs=outputs,
    )


def confusion_matrix(outputs: NDArray[Any], data: Dataset, from_logits: bool) -> list[list[int]] | None:
    """Counts of test rows by their class (first index) and by the predicted one (second); None without classes."""
    if data.labels is None or data.multi_label:
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
    """Compare outputs with the test split: accuracy for classes, F1 too for several at once, mse and mae for values."""
    if data.multi_label:
        return _label_metrics(predicted_labels(outputs, from_logits), data)
    if data.labels is not None:
        return {"accuracy": float(np.mean(predicted_classes(outputs, from_logits) == data.test.y))}
    return _errors(outputs, data)


def trivial_metrics(data: Dataset) -> Metrics:
    """The figures of the best constant answer: the most frequent class of the training rows, or their mean target."""
    if data.multi_label:
        return _label_metrics(np.broadcast_to(data.train.y.mean(axis=0) > 0.5, data.test.y.shape), data)
    if data.labels is not None:
        return {"accuracy": float(np.mean(data.test.y == np.bincount(data.train.y).argmax()))}
    mean = data.train.y.mean(axis=0, dtype=np.float64)
    return _errors(data.target_scaling.undo(mean) if data.target_scaling else mean, data)


def _label_metrics(found: NDArray[Any], data: Dataset) -> Metrics:
    """Accuracy over rows and labels, F1 over all of them (micro), and the share of rows with every label right."""
    right = data.test.y > 0.5
    hits = int((found & right).sum())
    named = int(found.sum()) + int(right.sum())
    return {
        "accuracy": float(np.mean(found == right)),
        "f1": 2 * hits / named if named else 1.0,
        "exact": float(np.mean((found == right).all(axis=1))),
    }


def _errors(outputs: NDArray[Any], data: Dataset) -> Metrics:
    error = outputs.astype(np.float64) - data.test.y
    return {"mse": float(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}


def relative_difference(before: NDArray[Any], after: NDArray[Any], *, per_output: bool) -> float:
    """The difference that 99 of 100 rows stay within, as a share of the range of `before`.

    A row's difference is that of its output that differs most. The maximum over all rows would only describe the row
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


def predicted_labels(outputs: NDArray[Any], from_logits: bool) -> NDArray[Any]:
    """Which labels each row of outputs has: those that are more likely than not.

    >>> predicted_labels(np.array([[0.1, 0.9], [0.8, 0.7]]), from_logits=False).tolist()
    [[False, True], [True, True]]
    """
    labels: NDArray[Any] = outputs > (0.0 if from_logits else 0.5)
    return labels


def predicted_classes(outputs: NDArray[Any], from_logits: bool) -> NDArray[Any]:
    """The class of each row of outputs; a single output is the probability, or logit, of class 1.

    >>> predicted_classes(np.array([[0.1, 0.9], [0.8, 0.2]]), from_logits=False).tolist()
    [1, 0]
    >>> predicted_classes(np.array([[0.4], [-0.4]]), from_logits=True).tolist()
    [1, 0]
    """
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > (0.0 if from_logits else 0.5)).astype(np.int64)
    classes: NDArray[Any] = outputs.argmax(axis=1)
    return classes
