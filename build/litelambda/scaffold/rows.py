"""Rows for a project's test: those of the test split as a client has them, with the right answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from itertools import islice
from typing import Any

import numpy as np

from litelambda.data.dataset import Dataset
from litelambda.data.scaling import Preprocessing
from litelambda.scaffold.project import Examples

MOST_ROWS = 50
_MOST_BYTES = 400_000  # of all rows as JSON


def examples_of(data: Dataset, *, whole: bool, items: Sequence[str] = ()) -> Examples:
    """The first test rows, as many as a small request holds.

    Args:
        data: the data set.
        whole: whether the values of arrays are whole numbers, such as pixels.
        items: the names of a catalogue's items by number; empty for other tasks.
    """
    count = min(MOST_ROWS, len(data.test))
    rows = _fitting(_raw_rows(data, count, whole=whole))
    return Examples(rows, [_answer(data, data.test.y[number], items) for number in range(len(rows))])


def _raw_rows(data: Dataset, count: int, *, whole: bool) -> list[Any]:
    if data.raw_test is not None:
        columns = data.raw_test(np.arange(count))
        return [
            {name: _in_json(value) for name, value in zip(columns, values, strict=True)}
            for values in zip(*columns.values(), strict=True)
        ]
    rows = data.test.x[:count]
    if isinstance(data.preprocessing, Preprocessing):
        rows = data.preprocessing.undo(rows)
    if whole:
        found: list[Any] = np.rint(rows).astype(int).tolist()
        return found
    return plain(rows)


def plain(rows: Any) -> list[Any]:
    """Rows of an array for JSON, of floats the digits that matter."""
    array = np.asarray(rows)
    if array.dtype.kind != "f":
        found: list[Any] = array.tolist()
        return found
    rounded: list[Any] = np.vectorize(lambda value: float(f"{value:.7g}"), otypes=[float])(array).tolist()
    return rounded


def _in_json(value: Any) -> Any:
    if isinstance(value, bytes):
        return {"b64": base64.b64encode(value).decode()}
    return value.item() if isinstance(value, np.generic) else value


def _fitting(rows: Sequence[Any]) -> list[Any]:
    """The first rows that are small enough together, at least one."""
    sizes = np.cumsum([len(json.dumps(row)) for row in rows])
    return list(islice(rows, max(1, int((sizes <= _MOST_BYTES).sum()))))


def _answer(data: Dataset, target: Any, items: Sequence[str]) -> Any:
    if items:
        return items[int(target)]
    if data.labels is None:
        values = plain(np.asarray(target, np.float32))
        return values[0] if len(values) == 1 else values
    if data.multi_label:
        return [name for name, mark in zip(data.labels, target, strict=True) if mark]
    return data.labels[int(target)]
