"""Reads CSV tables: what separates their cells, which columns are categories, and their values."""

from __future__ import annotations

import csv
import sys
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from math import isfinite, isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.data.stored_rows import RawDataset, needs_streaming
from litelambda.data.table_columns import TableColumn, choose_columns, label_names
from litelambda.data.tables import TableRows
from litelambda.recipe.sections import CsvData
from litelambda_serving.preprocessing.base import shown
from litelambda_serving.preprocessing.cells import is_missing, is_number, parse_number, sniff

_ROWS_AT_ONCE = 4096
_SNIFFED_LINES = 200

_Lines = Iterator[tuple[int, list[str]]]


def read_table(path: Path, settings: CsvData) -> RawDataset:
    """Read a table with a header line.

    Raises:
        DataError: it is not a CSV file, lacks a column, or has a cell that cannot be what its column is.
        OSError: the file cannot be read.
    """
    num_bytes = path.stat().st_size
    streamed = needs_streaming(num_bytes) if settings.streaming is None else settings.streaming
    names = {*label_names(settings), *(settings.features or [])}
    file = CsvFile(path, names, settings.delimiter or "", settings.decimal or "")
    features, notes = choose_columns(path, settings, file.header)
    rows = TableRows(path, settings, _columns(file, features, settings.categories), "line")
    if not file.dialect.is_plain:
        notes.append(file.dialect.describe())
    return rows.dataset(_parts(file, rows), notes, streamed=streamed)


class CsvFile:
    """A CSV file: its dialect and its header, and the lines after it.

    Args:
        path: of the file.
        names: of columns that it should have.
        delimiter: where it is known.
        decimal: the decimal mark, where it is known.
    """

    def __init__(self, path: Path, names: Collection[str] = (), delimiter: str = "", decimal: str = "") -> None:
        self.path = path
        self.dialect = sniff(self._head(), names, delimiter, decimal)
        _, header = next(self._records(), (1, []))
        self.header = [name.strip() for name in header]

    def lines(self) -> _Lines:
        """The number and the cells of each line after the header.

        Raises:
            DataError: a line is not CSV, or has another number of cells than the header.
        """
        for number, cells in islice(self._records(), 1, None):
            if len(cells) != len(self.header):
                raise DataError(
                    f"{self.path}, line {number}: {len(cells)} fields, the header has {len(self.header)} "
                    f"({self.dialect.describe()})"
                )
            yield number, cells

    def _head(self) -> list[str]:
        return list(islice(self._texts(), _SNIFFED_LINES))

    def _texts(self) -> Iterator[str]:
        try:
            with self.path.open(newline="", encoding="utf-8-sig") as file:
                for number, line in enumerate(file, start=1):
                    if "\0" in line:
                        raise DataError(
                            f"{self.path}, line {number}: a NUL character, as files in UTF-16 have: save it as UTF-8"
                        )
                    yield line
        except UnicodeDecodeError as error:
            raise DataError(f"{self.path} is not a CSV file in UTF-8: {error}: save it as UTF-8") from error

    def _records(self) -> _Lines:
        reader = csv.reader(self._texts(), delimiter=self.dialect.delimiter, strict=True)
        number = 1
        try:
            for cells in reader:
                if cells:
                    yield number, cells
                number = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self.path}, line {number}, is not CSV: {error}") from error


@dataclass
class _Kinds:
    """What the cells of a column look like: how many are numbers and texts, and where the first text is."""

    numbers: int = 0
    texts: int = 0
    first_text: str = ""
    line: int = 0


def _columns(file: CsvFile, features: Sequence[str], categories: Collection[str]) -> list[TableColumn]:
    """The columns to predict from: categories where the recipe says so, or where their cells are text."""
    places = {name: file.header.index(name) for name in features if name not in categories}
    kinds = {name: _Kinds() for name in places}
    decimal = file.dialect.decimal
    for number, cells in file.lines():
        for name, place in places.items():
            _look_at(kinds[name], cells[place], number, decimal)
    return [TableColumn(name, _type_of(file, name, kinds.get(name))) for name in features]


def _look_at(kinds: _Kinds, cell: str, line: int, decimal: str) -> None:
    try:
        value = float(cell if decimal == "." else cell.replace(",", "."))
    except ValueError:
        if not is_missing(cell):
            if not kinds.texts:
                kinds.first_text, kinds.line = cell, line
            kinds.texts += 1
    else:
        kinds.numbers += not isnan(value)


def _type_of(file: CsvFile, name: str, kinds: _Kinds | None) -> str:
    if kinds is None:
        return "category"
    other = "," if file.dialect.decimal == "." else "."
    if kinds.texts and is_number(kinds.first_text, other):
        raise DataError(
            f"{file.path}, line {kinds.line}: {shown(kinds.first_text)} in column {name!r} is a number with another "
            f"decimal mark than {file.dialect.decimal!r}: set data.decimal, or list the column in data.categories"
        )
    if kinds.texts > kinds.numbers:
        return "category"
    if kinds.texts:
        raise DataError(
            f"{file.path}, line {kinds.line}: {shown(kinds.first_text)} in column {name!r} is not a number, as others "
            f"there are: correct it, or list the column in data.categories"
        )
    return "number"


def _parts(file: CsvFile, rows: TableRows) -> Iterator[NDArray[np.float64]]:
    """The values, some thousand rows at a time."""
    readers = [(column, _reader(column, file.dialect.decimal)) for column in rows.columns]
    where = [file.header.index(column.name) for column in rows.columns]
    labels = [(name, file.header.index(name)) for name in label_names(rows.settings)]
    single = isinstance(rows.settings.label, str)
    lines = file.lines()
    while block := list(islice(lines, _ROWS_AT_ONCE)):
        values = np.empty((len(block), len(where)))
        found = [
            [_target(rows, number, name, cells[place].strip(), file.dialect.decimal) for name, place in labels]
            for number, cells in block
        ]
        targets = [each[0] for each in found] if single else found
        for row, (number, cells) in enumerate(block):
            for place, (column, read) in enumerate(readers):
                try:
                    values[row, place] = read(cells[where[place]])
                except ValueError as error:
                    raise DataError(f"{rows.where(number)}: column {column.name!r}: {error}") from None
        yield rows.kept(values, targets, [number for number, _ in block])


def _target(rows: TableRows, line: int, column: str, text: str, decimal: str) -> Any:
    settings, place = rows.settings, rows.where(line)
    names_several = settings.task == "multi_label" and isinstance(settings.label, str)
    if names_several and not text:
        return ""  # none of the classes
    if is_missing(text) and text not in (settings.labels or ()):
        raise DataError(
            f"{place}: column {column!r}, which is to be predicted, has no value ({shown(text)}): "
            "remove the line, or list the value in data.labels"
        )
    if settings.task == "classification" or names_several:
        return sys.intern(text)
    try:
        return parse_number(text, decimal)
    except ValueError as error:
        raise DataError(f"{place}: column {column!r}: {error}") from None


def _reader(column: TableColumn, decimal: str) -> Callable[[str], float]:
    """What turns cells into the column's values."""
    known: dict[str, float] = {}

    def category(cell: str) -> float:
        value = known.get(cell)
        if value is None:
            value = known[cell] = column.stored(None if is_missing(cell) else cell)
        return value

    def number(cell: str) -> float:
        try:
            value = float(cell)
            if isfinite(value) and "_" not in cell and (decimal == "." or "." not in cell):
                return value
        except ValueError:
            pass
        return nan if is_missing(cell) else parse_number(cell.strip(), decimal)

    return category if column.type == "category" else number
