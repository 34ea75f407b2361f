"""Explanations as a page draws them: over the picture, over the words, or as bars of the strongest features.

Red is for, blue is against the answer that is explained.
"""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_BARS = 8
_LEAST_SIDE = 112  # of a picture that is drawn over
_FOR, _AGAINST = (203, 24, 29), (33, 102, 172)
_FADED = 0.45  # how much of the picture is left under its colors


def drawn(attributions: Mapping[str, Any], shows: Mapping[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    """What a page needs to draw an explanation.

    Args:
        attributions: by field, as the service answers them.
        shows: the row, see `litelambda.evaluation.examples`.
        shape: of a picture before it was flattened; empty where it was not.

    Returns:
        `{"picture": base64 of a PNG}`, `{"marks": [[start, end, strength]]}` with strengths from -1 to 1, or
        `{"bars": [[name, attribution]]}`, the strongest first.
    """
    value = next(iter(attributions.values()))
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return {"marks": _marks(value)}
    if "picture" in shows:
        return {"picture": _overlay(shows["picture"], _on_grid(np.array(value, dtype=float), shape))}
    named = _named(attributions)
    return {"bars": sorted(named, key=lambda pair: -abs(pair[1]))[:_MOST_BARS]}


def _named(attributions: Mapping[str, Any]) -> list[list[Any]]:
    """Each number with the name of its field, and its place where the field has several."""
    named = []
    for name, value in attributions.items():
        values = np.array(value, dtype=float)
        if values.ndim == 0:
            named.append([name, float(values)])
        else:
            named += [[f"{name}[{', '.join(map(str, at))}]", float(each)] for at, each in np.ndenumerate(values)]
    return named


def _marks(tokens: Sequence[Mapping[str, Any]]) -> list[list[Any]]:
    most = max((abs(token["attribution"]) for token in tokens), default=0.0) or 1.0
    return [
        [token["start"], token["end"], round(token["attribution"] / most, 3)]
        for token in tokens
        if token["start"] is not None and token["end"] > token["start"]
    ]


def _on_grid(values: NDArray[Any], shape: Sequence[int]) -> NDArray[Any]:
    """A number for each pixel or cell: channels are added up."""
    if values.ndim == 1 and values.size == math.prod(shape):
        values = values.reshape(tuple(shape))
    values = values.reshape([size for size in values.shape if size != 1] or [1])
    if values.ndim == 3:
        values = values.sum(axis=2)
    return values if values.ndim == 2 else values.reshape(1, -1)


def _overlay(picture: str, values: NDArray[Any]) -> str:
    """The picture in gray, with the values over it in color."""
    from PIL import Image

    shown = Image.open(io.BytesIO(base64.b64decode(picture))).convert("L")
    scale = max(1, math.ceil(_LEAST_SIDE / max(shown.size)))
    size = (shown.width * scale, shown.height * scale)
    gray = np.asarray(shown.resize(size, Image.Resampling.NEAREST), float)[..., None] * _FADED + 255 * (1 - _FADED) / 2
    most = float(np.quantile(np.abs(values), 0.99)) or float(np.abs(values).max()) or 1.0
    field = Image.fromarray((values / most).astype(np.float32))
    strength = np.clip(np.asarray(field.resize(size, Image.Resampling.NEAREST)), -1, 1)[..., None]
    color = np.where(strength > 0, np.array(_FOR, float), np.array(_AGAINST, float))
    mixed = gray * (1 - np.abs(strength)) + color * np.abs(strength)
    buffer = io.BytesIO()
    Image.fromarray(mixed.round().astype(np.uint8)).quantize(64).save(buffer, "PNG", optimize=True)
    return base64.b64encode(buffer.getvalue()).decode()
