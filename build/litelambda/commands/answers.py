"""The rows of an answer, whatever protocol it is in, and how far two rows are apart."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from litelambda_serving.inference_protocol.inputs import DATATYPES
from litelambda_serving.tensor.strings import from_wire

__all__ = ["decision", "difference", "rows_of_answer"]

Row = list[Any]

_DTYPES = {datatype: dtype for dtype, datatype in DATATYPES.items()}


def rows_of_answer(body: bytes, length: str = "") -> list[Row]:
    """The values of each row of a prediction, flat: numbers, text and None.

    Args:
        body: of a V1 or V2 answer.
        length: of the JSON before V2's binary tensors; "" where all is JSON.

    >>> rows_of_answer(b'{"predictions": [[0.1, 0.9], [0.8, 0.2]]}')
    [[0.1, 0.9], [0.8, 0.2]]
    >>> rows_of_answer(b'{"outputs": [{"name": "y", "shape": [2, 1], "datatype": "FP32", "data": [1.5, 2.5]}]}')
    [[1.5], [2.5]]

    Raises:
        ValueError, LookupError, TypeError: it is not a prediction.
    """
    size = int(length) if length else len(body)
    document = json.loads(body[:size])
    if "model_name" in document or _are_tensors(document.get("outputs")):
        return _joined(list(_tensors(document["outputs"], body[size:])))
    for key in ("predictions", "results", "result"):
        if key in document:
            found = document[key]
            rows = found.get("classifications") or found["regressions"] if isinstance(found, dict) else found
            return [list(_flat(row)) for row in rows]
    outputs = document["outputs"]
    columns = list(outputs.values()) if isinstance(outputs, dict) else [outputs]
    return _joined([[list(_flat(row)) for row in (each if isinstance(each, list) else [each])] for each in columns])


def difference(before: Row, after: Row) -> float:
    """The largest difference between two rows' numbers; infinite where they have other values altogether."""
    if len(before) != len(after):
        return math.inf
    return max((_distance(one, other) for one, other in zip(before, after, strict=True)), default=0.0)


def decision(row: Row) -> Any:
    """What a row says: its text, the place of its largest number where it has several, else nothing."""
    texts = [value for value in row if isinstance(value, str)]
    if texts:
        return texts[0] if len(texts) == 1 else texts
    numbers = [value for value in row if value is not None]
    return row.index(max(numbers)) if len(numbers) > 1 else None


def _distance(one: Any, other: Any) -> float:
    numbers = all(isinstance(value, int | float) for value in (one, other))
    if one == other or (numbers and math.isnan(one) and math.isnan(other)):
        return 0.0
    apart = abs(one - other) if numbers else math.inf
    return math.inf if math.isnan(apart) else apart


def _flat(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for key in sorted(value):
            yield from _flat(value[key])
    elif isinstance(value, list):
        for each in value:
            yield from _flat(each)
    else:
        yield value


def _are_tensors(outputs: Any) -> bool:
    return isinstance(outputs, list) and bool(outputs) and isinstance(outputs[0], dict) and "datatype" in outputs[0]


def _tensors(outputs: Sequence[dict[str, Any]], binary: bytes) -> Iterator[list[Row]]:
    """The rows of each of V2's tensors."""
    start = 0
    for tensor in outputs:
        shape = tensor["shape"]
        count = math.prod(shape)
        if "data" in tensor:
            values = list(_flat(tensor["data"]))
        else:
            size = tensor["parameters"]["binary_data_size"]
            block, start = binary[start : start + size], start + size
            dtype = _DTYPES[tensor["datatype"]]
            strings = dtype == "string"
            values = (
                [each.decode("utf-8", "replace") for each in from_wire(memoryview(block), tensor["name"], count)]
                if strings
                else np.frombuffer(block, dtype).tolist()
            )
        rows = shape[0] if shape else 1
        width = count // max(rows, 1)
        yield [values[row * width : (row + 1) * width] for row in range(rows)]


def _joined(columns: Sequence[list[Row]]) -> list[Row]:
    """The rows of several outputs; all values as one row where they have different numbers of rows."""
    if len({len(rows) for rows in columns}) == 1:
        return [[value for part in parts for value in part] for parts in zip(*columns, strict=True)]
    return [[value for rows in columns for row in rows for value in row]]
