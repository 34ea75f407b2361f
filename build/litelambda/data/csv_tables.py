"""Reads CSV tables, into memory or into a temporary file that rows are read from."""

from __future__ import annotations

import csv
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.data.stored_rows import RawDataset, Split, StoredRows, file_rows, needs_streaming
from litelambda.recipe.sections import CsvData

_ROWS_AT_ONCE = 4096

_Lines = Iterator[tuple[int, list[str]]]


def read_table(path: Path, settings: CsvData) -> RawDataset:
    """Read a table with a header line.

    Raises:
        DataError: it is not a CSV file, lacks a column, or has a field that is not a number.
        OSError: the file cannot be read.
    """
    streamed = needs_streaming(path.stat().st_size) if settings.streaming is None else settings.streaming
    lines = _lines(path)
    _, header = next(lines, (1, []))
    features = settings.features or [name for name in header if name != settings.label]
    missing = [name for name in (settings.label, *features) if name not in header]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
    labels: list[Any] = []
    parts = _parse(path, settings, header, features, lines, labels)
    if not streamed:
        x = np.concatenate([np.empty((0, len(features)), np.float32), *parts])
        return RawDataset(Split(StoredRows.of(x), np.array(labels)), None, None)
    with tempfile.TemporaryFile() as numbers:  # deleted with its last reader
        for part in parts:
            numbers.write(part.tobytes())
        numbers.flush()
        shape = (len(labels), len(features))
        rows = file_rows(os.dup(numbers.fileno()), 0, shape, np.float32, f"the numbers of {path}")
    return RawDataset(Split(rows, np.array(labels)), None, None, streamed=True)


def _lines(path: Path) -> _Lines:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            yield from ((number, line) for number, line in enumerate(csv.reader(file), start=1) if line)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a CSV file: {error}") from error


def _parse(
    path: Path, settings: CsvData, header: list[str], features: list[str], lines: _Lines, labels: list[Any]
) -> Iterator[NDArray[np.float32]]:
    """Turn lines into numbers, some thousand rows at a time; labels are appended to `labels`."""
    columns, label = [header.index(name) for name in features], header.index(settings.label)
    number = _number_at(path)
    while block := list(islice(lines, _ROWS_AT_ONCE)):
        x = np.empty((len(block), len(columns)), np.float32)
        for row, (line_number, line) in enumerate(block):
            if len(line) != len(header):
                raise DataError(f"{path}, line {line_number}: {len(line)} fields, the header has {len(header)}")
            x[row] = [number(line_number, name, line[column]) for name, column in zip(features, columns, strict=True)]
            target = sys.intern(line[label].strip())
            is_class = settings.task == "classification"
            labels.append(target if is_class else number(line_number, settings.label, target))
        yield x


def _number_at(path: Path) -> Callable[[int, str, str], float]:
    def number(line: int, column: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise DataError(f"{path}, line {line}: {text!r} in column {column!r} is not a number") from None

    return number
