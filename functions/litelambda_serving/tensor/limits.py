"""Numbers that a graph can look up: those of words or users for which it has rows.

Loaded with the first request to a model that has such limits.
"""

from __future__ import annotations

from litelambda_serving.errors import TensorError
from litelambda_serving.tensor import unpack_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.tensor import Tensor, TensorSpec

__all__ = ["check_limits"]


def check_limits(tensor: Tensor, spec: TensorSpec) -> None:
    """Refuse values outside the range that the graph can look up.

    Args:
        tensor: values for an input.
        spec: the input, which has `limits`.

    Raises:
        TensorError: a value is outside `limits`.
    """
    low, high = spec.limits or (0, 0)
    data: Any = memoryview(tensor.data).cast("B")
    # A memoryview reads every dtype but the 16-bit floats.
    values = unpack_flat(tensor) if spec.dtype.format == "e" else data.cast(spec.dtype.format)
    # One pass in C for the many requests that are right. NaN is not between the limits, so that floats are compared.
    if spec.dtype.kind == "int" and low <= min(values, default=low) and max(values, default=low) <= high:
        return
    for place, value in enumerate(values):
        if not low <= value <= high:
            row = f", row {place // spec.row_values}" if spec.batched else ""
            raise TensorError(f"input {spec.name!r}{row}: {value} is outside the range [{low}, {high}]")
