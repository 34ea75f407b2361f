"""Structured pruning: removes whole units and filters, so that the model itself gets smaller and faster.

A unit can be removed where everything that reads it is known: from its layer through activations, poolings,
normalizations, dropout and flattening to one Dense layer or convolution, whose inputs are removed with it. Other layers
are not changed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from litelambda.common.errors import TrainError
from litelambda.common.progress import ReportProgress
from litelambda.compression.fine_tuning import TrainingContext, fine_tune
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.copies import check_same, copy_model
from litelambda.keras_tools.graph import only_follower
from litelambda.keras_tools.layers import RMS_ROWS, Array, input_rms, kernels, read, rebuild, serialize
from litelambda.recipe.compression import Structured

_TRANSPARENT = (
    "Activation", "ReLU", "LeakyReLU", "ELU", "Dropout", "GaussianNoise", "Identity",
    "MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D", "GlobalMaxPooling1D", "GlobalMaxPooling2D",
    "GlobalAveragePooling1D", "GlobalAveragePooling2D", "ZeroPadding1D", "ZeroPadding2D",
)  # fmt: skip


@dataclass(frozen=True)
class UnitPruning:
    """What was removed.

    Attributes:
        units: by layer, how many units it had and has.
        parameters: of the model before and after.
        history: per metric its value after each epoch of fine-tuning.
        excluded: why layers were not changed that the recipe does not exclude.
    """

    units: dict[str, tuple[int, int]]
    parameters: tuple[int, int]
    history: dict[str, list[float]]
    excluded: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class _Path:
    """From a layer to the one that consumes its units.

    Attributes:
        consumer: the Dense layer or convolution at the end.
        norms: batch normalizations on the way.
        repeats: inputs of the consumer per unit, more than one after flattening.
    """

    consumer: Any
    norms: list[Any]
    repeats: int


def prune_units(
    model: Any, settings: Structured, context: TrainingContext, progress: ReportProgress
) -> tuple[Any, UnitPruning]:
    """Remove the least important units of every layer that allows it, and fine-tune.

    Returns:
        The new model, and what was done.

    Raises:
        TrainError: an excluded layer does not exist, no layer allows it, or fine-tuning failed.
    """
    layers = kernels(model, settings.exclude, "compress.structured")
    paths = {name: path for name, layer in layers.items() if (path := _path(model, layer)) is not None}
    if not paths:
        raise TrainError("compress.structured: no layer's units lead to exactly one Dense layer or convolution")
    # Units that move the consumer's outputs least are removed, and the consumer's inputs with them.
    consumers = {path.consumer.name: path.consumer for path in paths.values()}
    rms = input_rms(model, consumers, context.data.representative(RMS_ROWS, context.train.seed))
    kept = {name: _kept(path, rms[path.consumer.name], settings.sparsity) for name, path in paths.items()}
    replacements = _replacements(model, paths, kept)
    smaller = rebuild(model, replacements)
    # Right after the removal the model must answer as the old one with the removed units silenced.
    check_same(_silenced(model, paths, kept), smaller, "pruned by units", changed=replacements)
    history = fine_tune(smaller, context, settings, [], progress)
    units = {name: (int(layers[name].kernel.shape[-1]), len(chosen)) for name, chosen in kept.items()}
    reason = "its units do not lead to exactly one other kernel"
    excluded = dict.fromkeys((name for name in layers if name not in paths), reason)
    return smaller, UnitPruning(units, (model.count_params(), smaller.count_params()), history, excluded)


def _silenced(model: Any, paths: dict[str, _Path], kept: dict[str, Array]) -> Any:
    """A copy of the model in which no layer reads the removed units."""
    masked = copy_model(model)
    for name, path in paths.items():
        kernel = read(path.consumer.kernel)
        is_read = np.zeros(kernel.shape[-2], bool)
        is_read[_rows(kernel, path.repeats, kept[name])] = True
        masked.get_layer(path.consumer.name).kernel.assign(kernel * is_read[:, np.newaxis])
    return masked


def _rows(kernel: Array, repeats: int, chosen: Array) -> Array:
    """The rows of a consumer's kernel that read some of the units."""
    width = kernel.shape[-2] // repeats
    rows: Array = (np.arange(repeats)[:, np.newaxis] * width + chosen).ravel()
    return rows


def _path(model: Any, layer: Any) -> _Path | None:
    keras = load_keras()
    plain = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D)
    if type(layer) not in plain or getattr(layer, "groups", 1) != 1:
        return None
    norms: list[Any] = []
    repeats = 1
    current = only_follower(model, layer)
    while current is not None:
        if type(current) in plain:
            grouped = getattr(current, "groups", 1) != 1 or getattr(current, "data_format", None) == "channels_first"
            return None if grouped else _Path(current, norms, repeats)
        if isinstance(current, keras.layers.BatchNormalization):
            norms.append(current)
        elif isinstance(current, keras.layers.Flatten):
            repeats *= int(np.prod(current.input.shape[1:-1]))
        elif type(current).__name__ not in _TRANSPARENT:
            return None
        current = only_follower(model, current)
    return None


def _kept(path: _Path, rms: Array, sparsity: float) -> Array:
    """Choose the units to keep: those whose activations move the consumer's outputs most."""
    kernel = read(path.consumer.kernel)
    weight = np.sqrt(np.square(kernel, dtype=np.float64).sum(axis=(*range(kernel.ndim - 2), kernel.ndim - 1)))
    importance = np.square(weight * rms).reshape(path.repeats, -1).sum(axis=0)
    num_kept = max(1, len(importance) - round(len(importance) * sparsity))
    return np.sort(np.argsort(-importance, kind="stable")[:num_kept])


def _replacements(
    model: Any, paths: dict[str, _Path], kept: dict[str, Array]
) -> dict[str, list[tuple[dict[str, Any], list[Array]]]]:
    """New layers for those that lose outputs, inputs or channels."""
    keras = load_keras()
    inputs = {path.consumer.name: (kept[name], path.repeats) for name, path in paths.items()}
    replacements: dict[str, list[tuple[dict[str, Any], list[Array]]]] = {}
    for layer in model.layers:
        if layer.name not in kept and layer.name not in inputs:
            continue
        kernel, bias = read(layer.kernel), [read(layer.bias)] if layer.use_bias else []
        if layer.name in inputs:
            chosen, repeats = inputs[layer.name]
            kernel = kernel[..., _rows(kernel, repeats, chosen), :]
        changes: dict[str, Any] = {}
        if layer.name in kept:
            chosen = kept[layer.name]
            kernel, bias = kernel[..., chosen], [each[chosen] for each in bias]
            changes["units" if isinstance(layer, keras.layers.Dense) else "filters"] = len(chosen)
        replacements[layer.name] = [(serialize(layer, **changes), [kernel, *bias])]
    for name, path in paths.items():
        for norm in path.norms:
            replacements[norm.name] = [(serialize(norm), [values[kept[name]] for values in norm.get_weights()])]
    return replacements
