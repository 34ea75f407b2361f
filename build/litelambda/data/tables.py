"""Tables in memory or in a temporary file: numbers and categories by column, as they were read.

A row is kept as float64: a number as it is, a category as its number among those that were found, a missing value as
NaN. What rows become is `litelambda.data.table_forms`.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Sequence
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.common.wording import counted
from litelambda.data.raw_form import Columns, RawForm, row_numbers
from litelambda.data.stored_rows import Indices, RawDataset, Split, StoredRows, file_rows
from litelambda.data.table_columns import TableColumn, missing_rule
from litelambda.data.table_forms import fit_table
from litelambda.recipe.sections import TableData


class TableRows:
    """The rows of a table as they are read: targets and places are complete after the last part.

    Attributes:
        columns: those that are predicted from; their categories grow with the rows.
        targets: what should be predicted of each row.
        places: the number of each row's line, or of the row.
        dropped: rows that were left out, because the recipe drops those with missing values.
    """

    def __init__(self, path: Path, settings: TableData, columns: Sequence[TableColumn], unit: str) -> None:
        self.path, self.settings, self.columns = path, settings, columns
        self.targets: list[Any] = []
        self.places: list[int] = []
        self.dropped = 0
        rules = [missing_rule(settings, column.name) for column in columns]
        self._refusing = [place for place, rule in enumerate(rules) if rule == "refuse"]
        self._dropping = [place for place, rule in enumerate(rules) if rule == "drop"]
        self._unit = unit

    def kept(self, values: NDArray[np.float64], targets: Sequence[Any], places: Sequence[int]) -> NDArray[np.float64]:
        """Some rows' values, those that are dropped left out.

        Raises:
            DataError: a value is missing, and the recipe does not say what to do.
        """
        gaps = np.isnan(values)
        refused = gaps[:, self._refusing]
        if refused.any():
            row, column = (int(each) for each in np.argwhere(refused)[0])
            raise DataError(
                f"{self.where(places[row])}: column {self.columns[self._refusing[column]].name!r} has no value: set "
                "data.missing to 'median', 'most_frequent' or 'drop', or data.fill"
            )
        here = ~gaps[:, self._dropping].any(axis=1)
        self.dropped += int((~here).sum())
        for row in np.flatnonzero(here).tolist():
            self.targets.append(targets[row])
            self.places.append(places[row])
        return values[here]

    def where(self, place: int) -> str:
        """A row's place, for messages."""
        return f"{self.path}, {self._unit} {place}"

    def dataset(self, parts: Iterable[NDArray[np.float64]], notes: Sequence[str], *, streamed: bool) -> RawDataset:
        """The rows as a data set, in memory or in a temporary file."""
        width = len(self.columns)
        if streamed:
            values = _in_file(self.path, parts, width)
        else:
            values = StoredRows.of(np.concatenate([np.empty((0, width)), *parts]))
        table = Table(self, values)
        said = [*notes]
        if categories := [column.name for column in self.columns if column.type == "category"]:
            said.append(f"categories: {', '.join(categories)}")
        if self.dropped:
            said.append(f"{counted(self.dropped, 'row')} with missing values dropped")
        train = Split(row_numbers(table), np.array(self.targets))
        return RawDataset(train, None, None, streamed, table, tuple(said))


class Table:
    """The raw values of a table; see `litelambda.data.raw_form.RawSource`."""

    def __init__(self, rows: TableRows, values: StoredRows) -> None:
        self._rows = rows
        self._values = values
        self._texts = [[*column.categories] for column in rows.columns]

    def __len__(self) -> int:
        return len(self._values)

    def read(self, numbers: Indices) -> Columns:
        """The raw values of some rows."""
        kept = self._values[numbers].T.tolist()
        return {
            column.name: [None if isnan(value) else value for value in found]
            if column.type == "number"
            else [None if isnan(value) else texts[int(value)] for value in found]
            for column, found, texts in zip(self._rows.columns, kept, self._texts, strict=True)
        }

    def fit(self, numbers: Indices) -> RawForm:
        """What rows become, from what the training rows hold."""
        return fit_table(self._rows.path, self._rows.settings, self._rows.columns, self._values, numbers)

    def place(self, number: int) -> str:
        """Where a row is."""
        return self._rows.where(self._rows.places[number])


def _in_file(path: Path, parts: Iterable[NDArray[np.float64]], width: int) -> StoredRows:
    num_rows = 0
    with tempfile.TemporaryFile() as file:  # deleted with its last reader
        for part in parts:
            file.write(part.tobytes())
            num_rows += len(part)
        file.flush()
        return file_rows(os.dup(file.fileno()), 0, (num_rows, width), np.float64, f"the values of {path}")
