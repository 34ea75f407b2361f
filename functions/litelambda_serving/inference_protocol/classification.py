"""V2's classification extension: the best classes of each row as "value:index:label" strings."""

from __future__ import annotations

from litelambda_serving.errors import MalformedRequestError, RequestError
from litelambda_serving.tensor import unpack_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.tensor import Tensor

__all__ = ["classify"]


def classify(name: str, count: Any, tensor: Tensor, labels: Sequence[str] | None) -> tuple[list[int], list[str]]:
    """Name the `count` classes with the largest values of every row.

    Args:
        name: the output's, for messages.
        count: the request's parameter `classification`; more than there are classes gives them all.
        tensor: the output, shape (batch, classes) or (classes,).
        labels: names of the classes by index, if known.

    Returns:
        The shape and the strings, row-major.

    Raises:
        RequestError: the count is none, or the output is not one value for each class.
    """
    if type(count) is not int or count < 0:
        raise MalformedRequestError(f"output {name!r}: 'classification' must be a number of classes")
    if len(tensor.shape) not in (1, 2) or tensor.dtype.kind in ("bool", "string"):
        raise RequestError(f"output {name!r} has shape {list(tensor.shape)}: expected one value for each class")
    values = unpack_flat(tensor)
    num_classes = tensor.shape[-1]
    count = min(count, num_classes)
    named = labels if labels is not None and len(labels) == num_classes else None
    texts = []
    for start in range(0, len(values), num_classes):
        row = values[start : start + num_classes]
        for index in sorted(range(num_classes), key=row.__getitem__, reverse=True)[:count]:
            value = f"{row[index]:.6f}" if tensor.dtype.kind == "float" else str(row[index])
            texts.append(f"{value}:{index}:{named[index]}" if named else f"{value}:{index}")
    return [*tensor.shape[:-1], count], texts
