"""A small network for what was found, and how long to train it: a start that is made to be changed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from litelambda.data.dataset import Dataset
from litelambda.scaffold.project import Found

_SMALL, _LARGE = 1000, 20_000  # training rows
_STEPS = 3000  # of the optimizer, about
_MOST_EPOCHS, _FEWEST_EPOCHS = 60, 8
_ROWS_TO_STOP_EARLY = 100  # validation rows: with fewer, their loss is mostly noise
_FAR_FROM_ZERO = 20  # of a target's mean from zero, in deviations, from which on int8 has too few steps for them
_ODD = 4.0  # times as many rows of one class as of another
_MOST_DROPPED = 2  # test rows


def choose_network(found: Found, data: Dataset) -> None:
    """Write `model`, `train`, `quantize` and `gate` into the recipe.

    Args:
        found: with its `data`; written to.
        data: what its recipe reads.
    """
    task, num_rows = found.tables["data"]["task"], len(data.train)
    found.tables["model"] = _model(found.tables["data"]["format"], data)
    losses = {"classification": "sparse_categorical_crossentropy", "multi_label": "binary_crossentropy"}
    batch_size = 32 if num_rows < 5000 else 128
    epochs = min(max(math.ceil(_STEPS * batch_size / num_rows), _FEWEST_EPOCHS), _MOST_EPOCHS)
    found.put("train.loss", losses.get(task, "mse"))
    found.put("train.optimizer", {"name": "adam", "learning_rate": 0.01 if num_rows < _SMALL else 0.003})
    found.put("train.schedule", "cosine")
    found.put("train.epochs", epochs)
    found.put("train.batch_size", batch_size)
    if data.validation is not None and len(data.validation) >= _ROWS_TO_STOP_EARLY:
        found.put("train.early_stopping", {"patience": 8})
    if task == "regression":
        _choose_scheme(found, data)
    else:
        _choose_gate(found, data)
    if task == "classification":
        _look_at_classes(found, data)


def choose_towers(found: Found) -> None:
    """The same for recommendations."""
    found.tables["model"] = {"builder": "two_tower", "dimension": 32}
    found.put("train.loss", "sampled_softmax")
    found.put("train.epochs", 12)
    found.put("train.batch_size", 256)
    found.put("train.optimizer", {"name": "adam", "learning_rate": 0.003})
    found.put("quantize.scheme", "dynamic")


def _model(data_format: str, data: Dataset) -> dict[str, Any]:
    shape, num_rows = data.input_shape, len(data.train)
    if data_format == "text":
        return {"builder": "text", "embedding": 32, "filters": [64, 64], "kernel_size": 5, "dropout": 0.3}
    if len(shape) == 3:
        poolings = max(1, min(4, int(math.log2(min(shape[:2]) / 4))))
        return {"builder": "cnn", "filters": [16, 32, 32, 64][:poolings], "dropout": 0.25}
    hidden = [16] if num_rows < _SMALL else [32, 32] if num_rows < _LARGE and shape[0] < 256 else [64, 64]
    return {"builder": "mlp", "hidden": hidden}


def _choose_scheme(found: Found, data: Dataset) -> None:
    """int8, unless the targets are far from zero, which the range of an int8 output always includes."""
    found.put("data.targets", "standardize", "trained on, the model answers in the original units")
    mean, deviation = np.abs(data.test.y.mean(axis=0)), data.test.y.std(axis=0)
    if (mean > _FAR_FROM_ZERO * deviation).any():
        found.guess("quantize.scheme", "dynamic", "the targets are far from zero for their spread: int8 would lose it")


def _choose_gate(found: Found, data: Dataset) -> None:
    allowed = math.ceil(1000 * max(0.005, _MOST_DROPPED / len(data.test))) / 1000
    found.put("gate.max_accuracy_drop", allowed, f"what int8 may cost, of {len(data.test):,} test rows")


def _look_at_classes(found: Found, data: Dataset) -> None:
    counts = np.bincount(data.train.y, minlength=data.num_outputs)
    labels = data.labels or []
    most, least = int(counts.argmax()), int(counts.argmin())
    if counts[most] >= _ODD * max(int(counts[least]), 1):
        found.notes.append(
            f"the classes are of very different size: {labels[most]!r} has {counts[most]:,} training rows, "
            f"{labels[least]!r} {counts[least]:,}. train.class_weights = 'balanced' lets rare ones count more"
        )
