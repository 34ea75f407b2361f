"""Evaluate a recommender: how often the item that a user chose is among those that it answers with.

The interactions of the test split were held out of training. The figure to beat is what the most popular items of the
training rows would reach, the same for everyone.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.reference import Reference
from litelambda.common.progress import ReportProgress
from litelambda.conversion.quantize import Quantized
from litelambda.data.dataset import Dataset
from litelambda.evaluation.build_comparison import ask_source
from litelambda.evaluation.evaluate import Evaluated, Metrics, relative_difference
from litelambda.keras_tools.backend import load_keras
from litelambda.training.two_tower import ITEMS, SCORES

_CHUNK = 1024
_BATCH = 32


@dataclass(frozen=True)
class Recommended:
    """A model's answers to the test split.

    Attributes:
        items: numbers of the best items, (rows, k).
        scores: their scores.
        metrics: `recall`: the share of the held-out interactions whose item is among the k.
        confusion: none.
    """

    items: NDArray[Any]
    scores: NDArray[Any]
    metrics: Metrics
    confusion: None = None


def recommend(model: Any, data: Dataset) -> Recommended:
    """Run a Keras model over the test split."""
    parts = [
        model.predict(data.test.x[start : start + _CHUNK], verbose=0) for start in range(0, len(data.test), _CHUNK)
    ]
    return _measured(parts, data)


def popularity_metrics(data: Dataset, k: int) -> Metrics:
    """The figures of answering everyone with the most popular items of the training rows."""
    popular = np.argsort(-np.bincount(data.train.y, minlength=data.num_outputs), kind="stable")[:k]
    return {"recall": float(np.isin(data.test.y, popular).mean())}


def evaluate_recommender(
    data: Dataset, trained: Recommended, compressed: Recommended, quantized: Quantized, progress: ReportProgress
) -> Evaluated:
    """Run the artifact over the test split and compare it with the models that it comes from; see `evaluate`."""
    reference = Reference(quantized.artifact, num_threads=os.cpu_count() or 1)
    name = reference.inputs[0].name
    batch = reference.safe_batch({name: data.test.x[:_BATCH]}, min(_BATCH, len(data.test)))
    parts = []
    for start in range(0, len(data.test), _CHUNK):
        parts.append(reference.run_real({name: data.test.x[start : start + _CHUNK]}, batch))
        progress(min(1.0, (start + _CHUNK) / len(data.test)), f"of {len(data.test):,} rows")
    answers = _measured(parts, data)
    return Evaluated(
        float_metrics=trained.metrics,
        compressed_metrics=None if compressed is trained else compressed.metrics,
        quantized_metrics=answers.metrics,
        trivial_metrics=popularity_metrics(data, trained.items.shape[1]),
        agreement=_overlap(trained.items, answers.items),
        max_abs_difference=float(np.max(np.abs(trained.scores - answers.scores))),
        difference=relative_difference(compressed.scores, answers.scores, per_output=False),
        num_examples=len(data.test),
        outputs=answers.items,
    )


def check_scores(model: Any, in_float: bytes, rows: NDArray[Any]) -> dict[str, Any]:
    """Check the float flatbuffer's scores against its model's own; see `check_build`.

    The items are not compared: of two scores that differ by a rounding error, either may come first.

    Raises:
        VerificationError: the flatbuffer does not answer as the model.
    """
    (tensor,) = model.inputs
    scores = load_keras().Model(model.inputs, {SCORES: model.output[SCORES]}, name=model.name)
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        asked = ask_source(scores, {tensor.name: rows}, Path(scratch))
        found = Reference(in_float).run_each(asked.runs.inputs)
        share = asked.check({SCORES: found[SCORES]})
    return {
        "source": f"Keras' predict, {asked.where}",
        "float_difference": share,
        "rows_compared": len(asked.runs.names),
    }


def _measured(parts: Sequence[Mapping[str, NDArray[Any]]], data: Dataset) -> Recommended:
    items, scores = (np.concatenate([part[name] for part in parts]) for name in (ITEMS, SCORES))
    hits = (items == data.test.y[:, None]).any(axis=1)
    return Recommended(items, scores, {"recall": float(hits.mean())})


def _overlap(first: NDArray[Any], second: NDArray[Any]) -> float:
    """The share of the answers' items that are the same, in whatever order."""
    same = [len({*mine} & {*theirs}) for mine, theirs in zip(first.tolist(), second.tolist(), strict=True)]
    return float(np.mean(same) / first.shape[1])
