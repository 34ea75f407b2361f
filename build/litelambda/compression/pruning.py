"""Pruning: the least important weights become zero during training.

Zeros stay zeros in int8, whose weights have zero point 0. They shrink the stored, compressed artifact, but neither the
flatbuffer nor the latency; `litelambda.compression.structured_pruning` does that.

Sources: Zhu & Gupta 2017, "To prune, or not to prune", eq. 1 (the schedule); Sun et al. 2023, "A simple and effective
pruning approach for large language models" (Wanda's scores); Lin et al. 2020, "Dynamic model pruning with feedback".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.progress import ReportProgress
from litelambda.compression.fine_tuning import TrainingContext, fine_tune
from litelambda.compression.straight_through import straight_through
from litelambda.keras_tools.layers import RMS_ROWS, Array, as_matrix, input_rms, kernels, read
from litelambda.recipe.compression import Pruning

# Change of accuracy in percentage points, of an MLP with 18,000 rows of MNIST in 2 epochs up to 87 % zeros:
_RAMP = 0.6
"""Share of the steps over which sparsity rises; the rest trains the weights that remain.

0.3: -2.0, 0.6: -1.8, 0.9: -2.9."""
_UPDATES = 40
"""How often masks are updated during the ramp; each update takes a pass over all weights.

5: -31, 40: -1.8, 200: -1.3. Zhu & Gupta 2017 update every 100 to 1,000 steps."""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Pruned:
    """What pruning did.

    Attributes:
        sparsity: share of zeros per layer.
        total_sparsity: share of zeros of all layers that were pruned.
        history: per metric its value after each epoch of fine-tuning.
        excluded: why layers were not changed that the recipe does not exclude.
    """

    sparsity: dict[str, float]
    total_sparsity: float
    history: dict[str, list[float]]
    excluded: dict[str, str] = field(default_factory=dict)


def prune(model: Any, settings: Pruning, context: TrainingContext, progress: ReportProgress) -> Pruned:
    """Prune a trained model in place while fine-tuning it; `context.masks` then keeps the zeros in later steps.

    Raises:
        TrainError: an excluded layer does not exist, no layer is left to prune, or fine-tuning failed.
    """
    layers = kernels(model, settings.exclude, "compress.pruning")
    excluded = {} if settings.first_convolution else _first_convolution(model, layers)
    layers = {name: layer for name, layer in layers.items() if name not in excluded}
    rms: dict[str, Array] = {}
    if settings.scores == "wanda":
        rms = input_rms(model, layers, context.data.representative(RMS_ROWS, context.train.seed))
    masks: dict[str, Mask] = {}
    ramp = max(1, round(context.num_steps(settings.epochs) * _RAMP))
    interval = max(1, ramp // _UPDATES)

    def choose(step: int, free: Mapping[str, Array]) -> None:
        if step > ramp or (step % interval and step != ramp):
            return
        sparsity = sparsity_at(step / ramp, settings.initial_sparsity, settings.final_sparsity)
        scores = {name: score(layer, free[name], rms.get(name)) for name, layer in layers.items()}
        masks.update(keep_largest(scores, sparsity, shared_threshold=settings.scope == "global"))

    def use(name: str) -> Any:
        return lambda free: free * masks[name].reshape(free.shape)

    callback = straight_through(
        {name: layer.kernel for name, layer in layers.items()}, {name: use(name) for name in layers}, choose
    )
    history = fine_tune(model, context, settings, [callback], progress)
    values = {name: read(layer.kernel) for name, layer in layers.items()}
    context.masks.update({name: value != 0 for name, value in values.items()})
    zeros = sum(int(np.count_nonzero(value == 0)) for value in values.values())
    return Pruned(
        {name: float(np.mean(value == 0)) for name, value in values.items()},
        zeros / sum(value.size for value in values.values()),
        history,
        excluded,
    )


def _first_convolution(model: Any, layers: Mapping[str, Any]) -> dict[str, str]:
    """The layer to spare: a convolution on the input itself, unless it is the only layer to prune."""
    first, layer = next(iter(kernels(model).items()))
    if len(layer.kernel.shape) < 3 or layers.keys() <= {first}:
        return {}
    return {first: "the first convolution has few weights, and all later layers depend on them"}


def sparsity_at(progress: float, initial: float, final: float) -> float:
    """The schedule of sparsity: fast at first, then slower and slower.

    Args:
        progress: share of the ramp that is done; from 1 on sparsity is final.
        initial: sparsity at 0.
        final: sparsity at 1.

    Example:
        >>> [round(sparsity_at(share, 0.0, 0.8), 3) for share in (0.0, 0.5, 1.0, 2.0)]
        [0.0, 0.7, 0.8, 0.8]

    Source: Zhu & Gupta 2017, eq. 1.
    """
    return final + (initial - final) * (1.0 - min(progress, 1.0)) ** 3


def score(layer: Any, kernel: Array, rms: Array | None = None) -> Array:
    """The importance of each weight, as a matrix with the output channels last.

    Args:
        layer: whose kernel it is.
        kernel: its values.
        rms: root mean square of the layer's input per channel; None for magnitude alone.
    """
    magnitude = np.abs(kernel)
    if rms is not None:
        magnitude = magnitude * rms[:, np.newaxis]  # (…, input channels, output channels) x (input channels, 1)
    return as_matrix(layer, magnitude)


def keep_largest(scores: Mapping[str, Array], sparsity: float, *, shared_threshold: bool = False) -> dict[str, Mask]:
    """Choose the weights to keep: those of the largest scores, and in each output channel at least one.

    Args:
        scores: matrices with the output channels last, by layer.
        sparsity: the share to drop.
        shared_threshold: one threshold for all layers, instead of one per layer.

    Returns:
        True where a weight stays.

    Example:
        >>> scores = {"dense": np.array([[0.1, 0.9], [0.4, 0.2], [0.3, 0.8]])}
        >>> keep_largest(scores, sparsity=0.5)["dense"].tolist()
        [[False, True], [True, False], [False, True]]
    """
    if shared_threshold:
        joined = _largest(np.concatenate([each.ravel() for each in scores.values()]), sparsity)
        ends = np.cumsum([each.size for each in scores.values()])[:-1]
        flat = dict(zip(scores, np.split(joined, ends), strict=True))
    else:
        flat = {name: _largest(each.ravel(), sparsity) for name, each in scores.items()}
    masks = {}
    for name, each in scores.items():
        mask = flat[name].reshape(each.shape)
        mask[each.argmax(axis=0), np.arange(each.shape[1])] = True
        masks[name] = mask
    return masks


def _largest(scores: Array, sparsity: float) -> Mask:
    mask = np.ones(scores.size, np.bool_)
    mask[np.argsort(scores, kind="stable")[: round(scores.size * sparsity)]] = False
    return mask
