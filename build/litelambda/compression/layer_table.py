"""The table of layers in a report: bits, zeros, rank and units of each, and which steps excluded it and why."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from litelambda.keras_tools.layers import layers_with_kernel, read

_BITS = {"int8": 8, "dynamic": 8, "float16": 16, "float32": 32}
_FEW_WEIGHTS = 1024  # the converter's dynamic scheme keeps smaller kernels in float32


def describe_layers(
    model: Any, figures: Mapping[str, Mapping[str, Any]], scheme: str, weight_bits: Mapping[str, int] | None
) -> list[dict[str, Any]]:
    """Describe the layers of the model that ships, and those that a step removed.

    Args:
        model: the Keras model that was quantized.
        figures: what each compression step did.
        scheme: of the quantization.
        weight_bits: by layer, where they differ.

    Returns:
        By layer: `layer`, `type`, `shape`, `bits` that its weights ship in, share of `zeros`; where they apply, `grid`
        (bits of the grid that it was trained on), `codes` (distinct int8 codes), `rank`, `units` (before, after); and
        `left_out`, the reason by step.
    """
    types = {layer.name: type(layer).__name__ for layer in model._flatten_layers(include_self=False)}
    with_kernel = layers_with_kernel(model)
    columns = {
        "grid": _figures(figures, "quantization_aware", "bits"),
        "codes": {
            **_figures(figures, "clustering", "distinct_values"),
            **_figures(figures, "quantization_aware", "distinct_values"),
        },
        "rank": _figures(figures, "low_rank", "ranks"),
        "units": _figures(figures, "structured", "units"),
    }
    reasons = {step: done["excluded"] for step, done in figures.items() if done.get("excluded")}
    names = dict.fromkeys([*with_kernel, *(name for each in reasons.values() for name in each)])
    rows = []
    for name in names:
        row: dict[str, Any] = {"layer": name, "type": types.get(name, "gone")}
        if name in with_kernel:
            row |= _kernel(with_kernel[name], scheme, (weight_bits or {}).get(name))
        row |= {column: values[name] for column, values in columns.items() if name in values}
        row["left_out"] = {step: each[name] for step, each in reasons.items() if name in each}
        rows.append(row)
    return rows


def _figures(figures: Mapping[str, Mapping[str, Any]], step: str, name: str) -> Mapping[str, Any]:
    found: Mapping[str, Any] = figures.get(step, {}).get(name, {})
    return found


def _kernel(layer: Any, scheme: str, bits: int | None) -> dict[str, Any]:
    shape = [int(size) for size in layer.kernel.shape]
    small = scheme == "dynamic" and math.prod(shape) < _FEW_WEIGHTS
    zeros = float(np.mean(read(layer.kernel) == 0))
    return {"shape": shape, "bits": bits or (32 if small else _BITS[scheme]), "zeros": zeros}
