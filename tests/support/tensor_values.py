"""A tensor's values as nested lists, by numpy."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from litelambda_serving.tensor import Tensor


def values_of(tensor: Tensor) -> Any:
    """Numbers, row-major, in the tensor's shape; a scalar as a bare value."""
    return np.frombuffer(tensor.data, tensor.dtype.name).reshape(tensor.shape).tolist()
