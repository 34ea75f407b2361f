"""Finds the layer that crashes the converter, by converting each kind of layer of the model alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.common.errors import ConversionError
from litelambda.conversion.converter import Conversion, ConverterCrashError, convert
from litelambda.conversion.export import export
from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.sections import Quantize

_CALIBRATION_ROWS = 8
_OTHERWISE = 'replace it, or do not use int8: set quantize.scheme = "dynamic", or import without representative rows'


def find_crashing_layer(model: Any, settings: Quantize, folder: Path) -> str:
    """Say which layer of a model crashes the converter, or is refused by it, on its own.

    Args:
        model: the model that crashed it.
        settings: how it was to be quantized.
        folder: a scratch folder.
    """
    conversions = []
    for index, (layer, alone) in enumerate(_kinds_of_layers(model)):
        noise = np.random.default_rng(0)
        shapes = [(_CALIBRATION_ROWS, *(size or 1 for size in tensor.shape[1:])) for tensor in alone.inputs]
        tensors = zip(shapes, alone.inputs, strict=True)
        conversions.append(
            Conversion(
                subject=f"layer {layer.name!r} ({type(layer).__name__})",
                saved_model=str(export(alone, folder / f"layer{index}")),
                output=str(folder / "alone.tflite"),
                scheme=settings.scheme,
                io=settings.io,
                representative={each.name: (noise.random(shape) * 2).astype(each.dtype) for shape, each in tensors},
            )
        )
    try:
        if conversions:
            convert(conversions)
    except ConverterCrashError as error:
        return f"{error.subject} crashes it on its own; {_OTHERWISE}"
    except ConversionError as error:
        return str(error)
    return f"no layer crashes it on its own; {_OTHERWISE}"


def _kinds_of_layers(model: Any) -> Iterator[tuple[Any, Any]]:
    """Each layer with a model of it alone; of layers that differ only in their weights the first."""
    keras = load_keras()
    seen = set()
    for layer in model.layers:
        if isinstance(layer, keras.layers.InputLayer):
            continue
        try:
            given = layer.input
            config = {key: value for key, value in layer.get_config().items() if key != "name"}
            shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(given)]
            kind = f"{type(layer)} {shapes} {json.dumps(config, sort_keys=True, default=str)}"
            if kind in seen:
                continue
            seen.add(kind)
            inputs = keras.tree.map_structure(
                lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype), given
            )
            alone = keras.Model(inputs, layer.__class__.from_config(layer.get_config())(inputs))
        except (AttributeError, TypeError, ValueError):  # used more than once, or with more than its inputs
            continue
        yield layer, alone
