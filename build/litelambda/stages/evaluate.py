"""Evaluate: the float model and the artifact on the same full test split, and the gate between them and publishing."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import GateError
from litelambda.sections import Gate, Recipe
from litelambda.stages.batches import predict
from litelambda.stages.compress import Compressed
from litelambda.stages.data import Dataset
from litelambda.stages.fitting import Progress
from litelambda.stages.interpreter import Reference
from litelambda.stages.quantize import Quantized
from litelambda.stages.rows import Rows
from litelambda.stages.train import Trained

_BATCH = 64
_CHUNK = 1024  # rows between two reports of progress, fewer where they are large
_CHUNK_BYTES = 1 << 26

Metrics = dict[str, float]


@dataclass(frozen=True)
class Evaluated:
    """Figures of both models on the test split.

    Attributes:
        float_metrics: of the trained model, before anything was compressed.
        compressed_metrics: of the float model after compression; None where nothing was compressed.
        quantized_metrics: of the artifact.
        agreement: share of rows on which trained model and artifact name the same class; None for regression.
        max_abs_difference: largest difference between their outputs.
        num_examples: rows of the test split.
        confusion: how often each class (a row) was taken for each (a column) by the artifact; None for regression.
    """

    float_metrics: Metrics
    compressed_metrics: Metrics | None
    quantized_metrics: Metrics
    agreement: float | None
    max_abs_difference: float
    num_examples: int
    confusion: list[list[int]] | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's `metrics`."""
        compressed = {"compressed": self.compressed_metrics} if self.compressed_metrics else {}
        return {
            "float": self.float_metrics,
            **compressed,
            "quantized": self.quantized_metrics,
            "agreement": self.agreement,
            "max_abs_difference": self.max_abs_difference,
            "num_examples": self.num_examples,
        }


def evaluate(
    recipe: Recipe, data: Dataset, trained: Trained, compressed: Compressed, quantized: Quantized, progress: Progress
) -> Evaluated:
    """Run both models over the whole test split and compare them."""
    from_logits = recipe.train.from_logits
    in_float = predict(trained.model, data.test.x)
    in_integers = run_artifact(quantized, data, progress)
    changed = None if compressed.model is trained.model else predict(compressed.model, data.test.x)
    agreement, confusion = None, None
    if data.labels is not None:
        found = predicted_classes(in_integers, from_logits)
        agreement = float(np.mean(predicted_classes(in_float, from_logits) == found))
        pairs = np.bincount(data.test.y * len(data.labels) + found, minlength=len(data.labels) ** 2)
        confusion = pairs.reshape(len(data.labels), -1).tolist()
    return Evaluated(
        float_metrics=measure(in_float, data, from_logits),
        compressed_metrics=None if changed is None else measure(changed, data, from_logits),
        quantized_metrics=measure(in_integers, data, from_logits),
        agreement=agreement,
        max_abs_difference=float(np.max(np.abs(in_float - in_integers))),
        num_examples=len(data.test),
        confusion=confusion,
    )


def check_gate(gate: Gate, evaluated: Evaluated) -> None:
    """Let the artifact pass, or not.

    Raises:
        GateError: it lost more against the float model than the gate allows; the message has the numbers.
    """
    before, after = evaluated.float_metrics, evaluated.quantized_metrics
    if "accuracy" in before:
        drop = before["accuracy"] - after["accuracy"]
        if drop > gate.max_accuracy_drop:
            raise GateError(
                f"accuracy fell by {drop:.4f}, from {before['accuracy']:.4f} (float) to {after['accuracy']:.4f} "
                f"(quantized); gate.max_accuracy_drop allows {gate.max_accuracy_drop}. Nothing was published"
            )
    elif after["mse"] > before["mse"] * (1 + gate.max_mse_increase):
        increase = after["mse"] / before["mse"] - 1 if before["mse"] else float("inf")
        raise GateError(
            f"the mean squared error rose by {increase:.1%}, from {before['mse']:.6g} (float) to {after['mse']:.6g} "
            f"(quantized); gate.max_mse_increase allows {gate.max_mse_increase:.1%}. Nothing was published"
        )


def run_artifact(quantized: Quantized, data: Dataset, progress: Progress) -> NDArray[Any]:
    """Outputs of the artifact for the whole test split, as real values."""
    return run_rows(Reference(quantized.artifact, num_threads=os.cpu_count() or 1), data.test.x, progress)


def run_rows(reference: Reference, rows: Rows, progress: Progress = lambda *_: None) -> NDArray[Any]:
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
    """Judge outputs against the test split: accuracy for classes, mse and mae for values."""
    if data.labels is not None:
        return {"accuracy": float(np.mean(predicted_classes(outputs, from_logits) == data.test.y))}
    error = outputs.astype(np.float64) - data.test.y
    return {"mse": float(np.mean(error**2)), "mae": float(np.mean(np.abs(error)))}


def predicted_classes(outputs: NDArray[Any], from_logits: bool) -> NDArray[Any]:
    """The class each row of outputs stands for; a single output is the probability, or logit, of class 1."""
    if outputs.shape[1] == 1:
        return (outputs[:, 0] > (0.0 if from_logits else 0.5)).astype(np.int64)
    classes: NDArray[Any] = outputs.argmax(axis=1)
    return classes
