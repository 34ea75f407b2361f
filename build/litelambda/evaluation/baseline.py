"""The row that explanations compare others with: the mean of the training rows, where a row is a vector of numbers.

Pictures, texts and places in a table have no meaningful mean: what they are compared with is chosen by the explanation.
"""

from __future__ import annotations

from typing import Any

from litelambda.artifact.flatbuffer import FlatbufferTensor
from litelambda.data.dataset import Dataset

_ROWS = 4096
_MOST_VALUES = 1024  # a cold start parses them


def baseline_of(data: Dataset, tensor: FlatbufferTensor, seed: int) -> dict[str, Any]:
    """The manifest's `explain` of a model's only input; empty if that has no mean.

    Args:
        data: of the build.
        tensor: the input.
        seed: chooses the rows of a large data set.
    """
    shape, are_places = data.input_shape, tensor.limits is not None
    if len(shape) != 1 or shape[0] > _MOST_VALUES or tensor.dtype != "float32" or are_places:
        return {}
    means = data.representative(_ROWS, seed).mean(axis=0, dtype="float64")
    return {"baseline": {tensor.name: [float(f"{mean:.6g}") for mean in means]}}
