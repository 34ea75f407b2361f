"""Fits what a table's rows become: scales, vocabularies and fills, from the training rows alone.

The result is the document that `litelambda_serving.preprocessing.table` prepares rows by.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.data.raw_form import RawForm
from litelambda.data.stored_rows import Indices, StoredRows
from litelambda.data.table_columns import TableColumn, missing_rule
from litelambda.recipe.sections import Scaling, TableData
from litelambda_serving.preprocessing.table import category_of

_ROWS_AT_ONCE = 1 << 16
_MAX_ONE_HOT = 1000  # categories of a column: more of them are names or numbers of things, which one-hot does not suit
_MAX_INLINE = 1000  # categories in the manifest itself

_Array = NDArray[np.float64]


def fit_table(
    path: Path, settings: TableData, columns: Sequence[TableColumn], values: StoredRows, numbers: Indices
) -> RawForm:
    """What a table's rows become.

    Args:
        path: of the table, for messages.
        settings: the recipe's `data`.
        columns: those that are predicted from.
        values: all rows, as `litelambda.data.tables` keeps them.
        numbers: of the training rows.

    Raises:
        DataError: the recipe does not fit the data; the message says what to change.
    """
    fit = _Fit(path, settings, columns, values, numbers)
    scales = fit.scales()
    documents, assets = [], {}
    for place, column in enumerate(columns):
        document: dict[str, Any] = {"name": column.name, "type": column.type}
        if column.type == "number":
            document |= scales.get(place, {})
        elif len(vocabulary := fit.vocabulary(place)) > _MAX_INLINE:
            document["vocabulary_file"] = f"vocabulary-{place}.json"
            assets[f"vocabulary-{place}.json"] = json.dumps(vocabulary, ensure_ascii=False).encode()
        else:
            document["vocabulary"] = vocabulary
        if column.type == "category":
            document |= {"encoding": settings.encoding, "unknown": settings.unknown}
        if fit.fills[place] is not None:
            document["missing"] = fit.fills[place]
        documents.append(document)
    shape = settings.reshape or [fit.width()]
    if math.prod(shape) != fit.width():
        raise DataError(
            f"data.reshape = {shape} has {math.prod(shape)} values, but rows of the data have shape [{fit.width()}]"
        )
    whole = {"kind": "table", "label": settings.label, "columns": documents}
    return RawForm(whole, tuple(shape), "int32" if settings.encoding == "index" else "float32", assets)


@dataclass
class _Figures:
    """Figures of the training rows, by column.

    Attributes:
        present: rows that have a value.
        total: sum of the values.
        low: the smallest.
        high: the largest.
        occurrences: of each category, the number of rows that have it.
        gathered: all values, of the columns that need them.
    """

    present: _Array
    total: _Array
    low: _Array
    high: _Array
    occurrences: dict[int, NDArray[np.int64]]
    gathered: dict[int, list[_Array]]


class _Fit:
    """The training rows' figures, and what follows from them."""

    def __init__(
        self, path: Path, settings: TableData, columns: Sequence[TableColumn], values: StoredRows, numbers: Indices
    ) -> None:
        self._path, self._settings, self._columns = path, settings, columns
        self._values, self._numbers = values, numbers
        self._numeric = [place for place, column in enumerate(columns) if column.type == "number"]
        if settings.encoding == "index" and self._numeric:
            raise DataError(
                f"{path}: data.encoding = 'index' needs categories in all columns, but "
                f"{', '.join(columns[place].name for place in self._numeric)} are numbers: list them in "
                "data.categories, or leave them out with data.features"
            )
        self._figures = self._measure()
        self.fills = [self._fill(place) for place in range(len(columns))]
        self._vocabularies = {
            place: self._find_vocabulary(place) for place, column in enumerate(columns) if column.type == "category"
        }

    def vocabulary(self, place: int) -> list[str]:
        """The categories of a column, in order."""
        return self._vocabularies[place]

    def width(self) -> int:
        """Values of a row."""
        if self._settings.encoding == "index":
            return len(self._columns)
        others = self._settings.unknown == "other"
        return len(self._numeric) + sum(len(each) + others for each in self._vocabularies.values())

    def scales(self) -> dict[int, dict[str, float]]:
        """Scale and offset by column: of each by itself, or of all together where rows are reshaped."""
        rule, places = self._settings.normalize, self._numeric
        if isinstance(rule, Scaling):
            return {place: {"scale": rule.scale, "offset": rule.offset} for place in places}
        if rule == "none" or not places:
            return {}
        fills = np.array([np.nan if self.fills[place] is None else self.fills[place] for place in places], np.float64)
        center, width = self._standard(fills) if rule == "standardize" else self._range(fills)
        scale = 1.0 / np.where(width == 0, 1.0, width)  # a constant column stays constant
        offset = -center * scale + 0.0
        return {
            place: {"scale": float(each), "offset": float(added)}
            for place, each, added in zip(places, *np.broadcast_arrays(scale, offset, fills)[:2], strict=True)
        }

    def _standard(self, fills: _Array) -> tuple[Any, Any]:
        """Mean and standard deviation, missing values filled."""
        axis = None if self._settings.reshape else 0
        count = len(self._numbers) * (1 if axis == 0 else len(fills))
        center = sum(part.sum(axis=axis) for part in self._filled(fills)) / count
        return center, np.sqrt(sum(np.square(part - center).sum(axis=axis) for part in self._filled(fills)) / count)

    def _range(self, fills: _Array) -> tuple[Any, Any]:
        """The smallest value, and the distance of the largest from it, missing values filled."""
        figures, places = self._figures, self._numeric
        low, high = np.fmin(figures.low[places], fills), np.fmax(figures.high[places], fills)
        if self._settings.reshape:
            low, high = low.min(), high.max()
        return low, high - low

    def _parts(self) -> Iterator[_Array]:
        for start in range(0, len(self._numbers), _ROWS_AT_ONCE):
            yield self._values[self._numbers[start : start + _ROWS_AT_ONCE]]

    def _filled(self, fills: _Array) -> Iterator[_Array]:
        for part in self._parts():
            numbers = part[:, self._numeric]
            yield np.where(np.isnan(numbers), fills, numbers)

    def _measure(self) -> _Figures:
        width = len(self._columns)
        figures = _Figures(np.zeros(width), np.zeros(width), np.full(width, np.nan), np.full(width, np.nan), {}, {})
        for place, column in enumerate(self._columns):
            if column.type == "category":
                figures.occurrences[place] = np.zeros(len(column.categories), np.int64)
            elif missing_rule(self._settings, column.name) in ("median", "most_frequent"):
                figures.gathered[place] = []
        for part in self._parts():
            here = ~np.isnan(part)
            figures.present += here.sum(axis=0)
            figures.total += np.where(here, part, 0.0).sum(axis=0)
            figures.low = np.fmin(figures.low, np.fmin.reduce(part, axis=0))
            figures.high = np.fmax(figures.high, np.fmax.reduce(part, axis=0))
            for place, found in figures.occurrences.items():
                codes = part[here[:, place], place].astype(np.int64)
                figures.occurrences[place] = found + np.bincount(codes, minlength=len(found))
            for place, gathered in figures.gathered.items():
                gathered.append(part[here[:, place], place])
        return figures

    def _fill(self, place: int) -> float | str | None:
        """What a missing value of a column counts as; None where they are refused."""
        column, figures = self._columns[place], self._figures
        rule = missing_rule(self._settings, column.name)
        if rule in ("refuse", "drop"):
            return None
        if rule == "fill":
            return self._constant(column)
        if not figures.present[place]:
            raise DataError(f"{self._path}: column {column.name!r} has no value in any training row: leave it out")
        if column.type == "category":
            if isinstance(self._settings.missing, dict) and rule != "most_frequent":
                raise DataError(
                    f"{self._path}: data.missing = {rule!r} is for numbers: use 'most_frequent' for column "
                    f"{column.name!r}"
                )
            return [*column.categories][int(figures.occurrences[place].argmax())]
        if rule == "mean":
            return float(figures.total[place] / figures.present[place])
        values = np.concatenate(figures.gathered[place])
        if rule == "median":
            return float(np.median(values))
        found, counts = np.unique(values, return_counts=True)
        return float(found[counts.argmax()])

    def _constant(self, column: TableColumn) -> float | str | None:
        value = self._settings.fill[column.name]
        if column.type == "category":
            return category_of(value)
        if isinstance(value, str):
            raise DataError(f"{self._path}: data.fill of column {column.name!r} must be a number, got {value!r}")
        return value

    def _find_vocabulary(self, place: int) -> list[str]:
        """The categories that training rows have, or enough of them."""
        column, settings = self._columns[place], self._settings
        counts = dict(zip(column.categories, self._figures.occurrences[place].tolist(), strict=True))
        least = settings.min_rows if settings.unknown == "other" else 1
        found = {text for text, count in counts.items() if count >= least}
        if isinstance(self.fills[place], str):
            found.add(str(self.fills[place]))
        unseen = sorted(counts.keys() - found)
        if unseen and settings.unknown == "refuse":
            raise DataError(
                f"{self._path}: column {column.name!r}: no training row has the category "
                f"{', '.join(map(repr, unseen[:5]))}: set data.unknown to 'zeros' or 'other', or leave the column out"
            )
        if not found:
            raise DataError(f"{self._path}: column {column.name!r} has no category to learn from: leave it out")
        if settings.encoding == "one_hot" and len(found) > _MAX_ONE_HOT:
            raise DataError(
                f"{self._path}: column {column.name!r} has {len(found):,} categories, of which a row can have "
                f"{_MAX_ONE_HOT:,} one-hot: leave it out, or set data.unknown = 'other' and data.min_rows"
            )
        whole = all(text.isdecimal() for text in found)
        return sorted(found, key=lambda text: (int(text), text) if whole else (0, text))
