"""Magnitude pruning: the smallest weights of every kernel become zero while training goes on.

Zeros stay zeros in int8, because its weights have zero point 0. They shrink what is stored compressed, not the
flatbuffer and not the time of a run.

Source: Zhu & Gupta 2017, "To prune, or not to prune", eq. 1 (the polynomial schedule).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import TrainError
from litelambda.sections import Pruning, Train
from litelambda.stages.backend import load_keras
from litelambda.stages.data import Dataset
from litelambda.stages.train import Progress, fit

_RAMP = 0.75  # share of the steps over which sparsity rises; in the rest the survivors settle
_UPDATES = 100  # masks are chosen anew this often on the way, not at every step


@dataclass(frozen=True)
class Pruned:
    """What pruning did.

    Attributes:
        sparsity: share of zeros per layer.
        history: per figure its value after each epoch of fine-tuning.
    """

    sparsity: dict[str, float]
    history: dict[str, list[float]]


def prune(model: Any, settings: Pruning, train: Train, data: Dataset, progress: Progress) -> Pruned:
    """Prune a trained model in place, fine-tuning it meanwhile.

    Args:
        model: the Keras model.
        settings: the recipe's `compress.pruning`.
        train: its `train` section: loss, optimizer, batch size.
        data: rows to fine-tune on.
        progress: told the share that is done and what is being done.

    Raises:
        TrainError: an excluded layer does not exist, nothing is left to prune, or fine-tuning failed.
    """
    kernels = _kernels(model, settings)
    num_steps = settings.epochs * math.ceil(len(data.train) / train.batch_size)
    interval = max(1, round(num_steps * _RAMP / _UPDATES))
    masks: dict[str, NDArray[np.bool_]] = {}
    step = 0

    def on_train_batch_end(batch: int, logs: object = None) -> None:  # noqa: ARG001 - Keras passes them by name
        nonlocal step
        step += 1
        target = sparsity_at(step / (num_steps * _RAMP), settings.initial_sparsity, settings.final_sparsity)
        for name, kernel in kernels.items():
            if name not in masks or (step % interval == 0 and step <= num_steps * _RAMP) or step == num_steps:
                masks[name] = keep_largest(np.asarray(kernel), target)
            kernel.assign(kernel * masks[name])

    callback = load_keras().callbacks.LambdaCallback(on_train_batch_end=on_train_batch_end)
    history = fit(model, train, data, settings.epochs, [callback], progress, settings.learning_rate)
    zeros = {name: float(np.mean(np.asarray(kernel) == 0)) for name, kernel in kernels.items()}
    return Pruned(zeros, history)


def sparsity_at(progress: float, initial: float, final: float) -> float:
    """The schedule: fast at first, when much can go, then ever slower.

    Args:
        progress: share of the ramp that is done; more than 1 is the final sparsity.
        initial: sparsity at 0.
        final: sparsity at 1.
    """
    return final + (initial - final) * (1.0 - min(progress, 1.0)) ** 3


def keep_largest(kernel: NDArray[Any], sparsity: float) -> NDArray[np.bool_]:
    """Choose the weights to keep: the largest by magnitude, and in each output channel at least one.

    Args:
        kernel: weights with the output channels last.
        sparsity: the share to drop.

    Returns:
        True where a weight stays.
    """
    magnitude = np.abs(kernel).reshape(-1, kernel.shape[-1])
    num_dropped = round(magnitude.size * sparsity)
    mask = np.ones(magnitude.size, np.bool_)
    mask[np.argsort(magnitude, axis=None, kind="stable")[:num_dropped]] = False
    mask = mask.reshape(magnitude.shape)
    mask[magnitude.argmax(axis=0), np.arange(magnitude.shape[1])] = True
    return mask.reshape(kernel.shape)


def _kernels(model: Any, settings: Pruning) -> dict[str, Any]:
    """The kernels to prune by the name of their layer; one-dimensional weights (biases, norms) are left alone."""
    found = {
        layer.name: layer.kernel
        for layer in model._flatten_layers(include_self=False)
        if getattr(layer, "kernel", None) is not None and len(layer.kernel.shape) > 1
    }
    unknown = [name for name in settings.exclude if name not in found]
    if unknown:
        raise TrainError(f"compress.pruning.exclude: no layer {', '.join(unknown)}; prunable are {', '.join(found)}")
    kernels = {name: kernel for name, kernel in found.items() if name not in settings.exclude}
    if not kernels:
        raise TrainError("compress.pruning: no layer is left to prune")
    return kernels
