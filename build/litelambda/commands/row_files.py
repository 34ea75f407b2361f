"""Rows of a file as a request would have them: CSV, Parquet, JSON Lines and NumPy's arrays."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.commands.captures import read_lines
from litelambda.common.errors import DataError
from litelambda.common.extras import require_extra
from litelambda_serving.preprocessing import RawInputs

__all__ = ["read_instances"]


def read_instances(path: Path, raw_inputs: RawInputs | None) -> Iterator[Any]:
    """The rows of a file, each as an instance of V1.

    Args:
        path: of a .csv, .parquet or .npy file, or of JSON Lines.
        raw_inputs: what prepares the model's inputs; None where rows are the model's own values.

    Raises:
        DataError: it cannot be read, or lacks a column.
        UsageError: pyarrow is not installed.
    """
    kind = path.suffix.lower()
    if kind not in (".csv", ".parquet", ".npy"):
        for place, line in read_lines(path):
            try:
                yield json.loads(line)
            except ValueError as error:
                raise DataError(f"{place} is not JSON: {error}") from error
        return
    try:
        if kind == ".npy":
            yield from np.load(path, mmap_mode="r", allow_pickle=False).tolist()
            return
        for row in _csv_rows(path) if kind == ".csv" else _parquet_rows(path):
            yield _instance(row, raw_inputs, path)
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error


def _csv_rows(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from csv.DictReader(file)


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    require_extra("parquet")
    from pyarrow.parquet import ParquetFile

    for batch in ParquetFile(path).iter_batches():
        yield from batch.to_pylist()


def _instance(row: Mapping[str, Any], raw_inputs: RawInputs | None, path: Path) -> Any:
    """A row by its fields; of a model without fields all of its numbers, in the columns' order."""
    if raw_inputs is None:
        return [float(value) for value in row.values()]
    if missing := [name for name in raw_inputs.fields if name not in row]:
        raise DataError(f"{path} has no column {', '.join(map(repr, missing))}; it has {', '.join(map(repr, row))}")
    return {name: _value(row[name], field.type) for name, field in raw_inputs.fields.items()}


def _value(value: Any, kind: str) -> Any:
    """Text of a CSV file as a field's value."""
    if not isinstance(value, str):
        return value
    if kind == "number":
        return float(value) if value.strip() else None
    return value if value or kind == "text" else None
