"""The columns of a table that a model is trained on, and what the recipe says of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import nan
from pathlib import Path
from typing import Any

from litelambda.common.errors import DataError
from litelambda.recipe.sections import TableData
from litelambda_serving.preprocessing.cells import INDEX_NAMES, is_number
from litelambda_serving.preprocessing.table import category_of

PARQUET_INDEX = "__index_level_0__"
"""As pandas names it."""


@dataclass
class TableColumn:
    """A column that is predicted from.

    Attributes:
        name: in the header.
        type: "number" or "category".
        categories: those that were found, by their numbers.
    """

    name: str
    type: str
    categories: dict[str, int] = field(default_factory=dict)

    def stored(self, value: Any) -> float:
        """A raw value as a float64: NaN for a missing one, of a category its number.

        Example:
            >>> column = TableColumn("island", "category")
            >>> [column.stored(value) for value in ("Dream", "Biscoe", "Dream", None)]
            [0, 1, 0, nan]
        """
        if self.type == "category":
            value = category_of(value)
            return nan if value is None else self.categories.setdefault(value, len(self.categories))
        return nan if value is None else value


def label_names(settings: TableData) -> list[str]:
    """The columns to predict."""
    return [settings.label] if isinstance(settings.label, str) else settings.label


def missing_rule(settings: TableData, column: str) -> str:
    """What the recipe says of a column's missing values; "fill" where it has a value of its own."""
    if column in settings.fill:
        return "fill"
    return settings.missing if isinstance(settings.missing, str) else settings.missing.get(column, "refuse")


def choose_columns(path: Path, settings: TableData, header: Sequence[str]) -> tuple[list[str], list[str]]:
    """The columns to predict from, and notes for people.

    Raises:
        DataError: the header lacks a column that the recipe names, has one twice, or one without a name.
    """
    if header and all(map(is_number, header)):
        raise DataError(f"{path} begins with {', '.join(header[:5])}: expected a header with the names of the columns")
    if duplicates := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path} has several columns of the name {', '.join(map(repr, duplicates))}: rename them")
    index = {*header[:1]} & INDEX_NAMES | {*header} & {PARQUET_INDEX}
    if "" in header[1:]:
        raise DataError(f"{path}: column {header.index('', 1) + 1} has no name: give it one in the first line")
    labels = label_names(settings)
    features = settings.features or [name for name in header if name not in (*labels, *index)]
    if missing := [name for name in dict.fromkeys([*labels, *features]) if name not in header]:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
    if both := [name for name in labels if name in features]:
        raise DataError(f"{path}: column {both[0]!r} is in data.features and in data.label: remove it from one")
    _check_named(path, settings, features)
    left_out = sorted(index - {*labels, *features})
    return features, [f"the index column {name!r} is left out" for name in left_out]


def _check_named(path: Path, settings: TableData, features: Sequence[str]) -> None:
    """Refuse what the recipe says of columns that are not predicted from."""
    by_column = settings.missing if isinstance(settings.missing, dict) else {}
    for key, names in (("categories", settings.categories), ("missing", by_column), ("fill", settings.fill)):
        if unknown := [name for name in names if name not in features]:
            raise DataError(
                f"{path}: data.{key} names {', '.join(unknown)}, but the columns to predict from are "
                f"{', '.join(features)}"
            )
