"""The columns of a table as they are seen: numbers, categories, text, dates, and what nothing can be learned from.

Cells become values here as in the readers of `litelambda.data`; what a column is good for is decided here alone.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from math import isfinite
from pathlib import Path
from typing import Any, Literal

from litelambda.common.errors import DataError
from litelambda.common.extras import require_extra
from litelambda.data.csv_tables import CsvFile
from litelambda.data.table_columns import PARQUET_INDEX
from litelambda_serving.preprocessing.cells import INDEX_NAMES, Dialect, is_missing, parse_number
from litelambda_serving.preprocessing.table import category_of

Kind = Literal["number", "category", "text", "date", "id", "constant", "empty", "mixed", "many", "sparse", "other"]

MOST_ROWS = 200_000
"""Rows that are looked at."""
_MOST_DISTINCT = 1001  # one more than one-hot takes
_DATE = re.compile(
    r"(\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}"
    r"|[A-Za-z]{3,9}\.? \d{1,2},? \d{4}|\d{1,2}\.? [A-Za-z]{3,9}\.? \d{4})([T ].*)?"
)
_ID_NAME = re.compile(r"(.*[_ ])?(id|uuid|guid|key)|.*[a-z]I[dD]", re.ASCII)
_SHARE_OF_DATES = 0.9
_WORDS_OF_TEXT = 4.0  # from so many words to a cell on, it is text to read, not a name


@dataclass
class Column:
    """What was seen of a column.

    Attributes:
        name: in the header.
        numbers: cells with a number.
        texts: cells with something else.
        gaps: cells without a value.
        values: how often each value was seen, up to a thousand of them.
        words: of all texts together.
        whole: whether all numbers are whole.
        lowest: the smallest number.
        highest: the largest.
        in_steps: whether each number is one more than the one before.
        dates: texts that are dates.
        type: that its file gives it, where that is neither numbers nor text, such as a list.
    """

    name: str
    numbers: int = 0
    texts: int = 0
    gaps: int = 0
    values: Counter[str | float] = field(default_factory=Counter)
    words: int = 0
    whole: bool = True
    lowest: float = float("inf")
    highest: float = float("-inf")
    in_steps: bool = True
    dates: int = 0
    type: str = ""
    _last: float | None = None

    def add(self, value: str | float | None) -> None:
        """Look at a cell."""
        if value is None:
            self.gaps += 1
            return
        if isinstance(value, str):
            self.texts += 1
            self.words += value.count(" ") + 1
            self.dates += bool(_DATE.fullmatch(value))
        else:
            self.numbers += 1
            self.whole &= value == int(value)
            self.lowest, self.highest = min(self.lowest, value), max(self.highest, value)
            self.in_steps &= self._last is None or value == self._last + 1
            self._last = value
        if len(self.values) < _MOST_DISTINCT or value in self.values:
            self.values[value] += 1

    @property
    def filled(self) -> int:
        """Cells with a value."""
        return self.numbers + self.texts

    @property
    def kind(self) -> Kind:
        """What the column is."""
        if self.gaps > self.filled:
            return "sparse" if self.filled else "empty"
        if self.type:
            return "date" if self.dates > _SHARE_OF_DATES * self.texts else "other"
        if len(self.values) == 1 and not self.gaps:
            return "constant"
        if not self.texts:
            return "id" if self._is_row_number() else "number"
        return "mixed" if self.texts <= self.numbers else self._kind_of_texts()

    def _kind_of_texts(self) -> Kind:
        if self.dates > _SHARE_OF_DATES * self.texts:
            return "date"
        distinct = len(self.values)
        mostly_distinct = self.filled >= 10 and distinct > 0.5 * min(self.filled, _MOST_DISTINCT)
        if self.words >= _WORDS_OF_TEXT * self.texts and (mostly_distinct or distinct > 100):
            return "text"
        if mostly_distinct:
            return "id"
        return "many" if distinct >= _MOST_DISTINCT else "category"

    def _is_row_number(self) -> bool:
        all_differ = len(self.values) == min(self.numbers, _MOST_DISTINCT)
        is_counted = self.in_steps or bool(_ID_NAME.fullmatch(self.name))
        return self.numbers >= 10 and self.whole and all_differ and is_counted

    @property
    def is_few_codes(self) -> bool:
        """Whether these are few whole numbers, which may stand for categories."""
        return not self.texts and self.whole and 2 < len(self.values) <= 12

    def describe(self) -> str:
        """In a few words, for people."""
        gaps = f", {self.gaps:,} without a value" if self.gaps else ""
        if self.kind == "other":
            return f"of type {self.type}{gaps}"
        if self.kind == "number":
            return f"numbers from {self.lowest:g} to {self.highest:g}{gaps}"
        if self.kind == "category":
            names = ", ".join(str(value) for value, _ in self.values.most_common(4))
            return f"{len(self.values)} categories: {names}{', …' if len(self.values) > 4 else ''}{gaps}"
        return f"{_WHAT[self.kind]}{gaps}"

    def why_left_out(self) -> str:
        """Why nothing can be learned from it; "" where something can."""
        if self.kind == "mixed":
            texts = [value for value in self.values if isinstance(value, str)]
            return f"{self.texts:,} of its {self.filled:,} cells are not numbers, such as {texts[0]!r}: correct them"
        if self.kind == "other":
            return f"it is of type {self.type}, neither numbers nor text"
        return _LEFT_OUT.get(self.kind, "")


_WHAT = {
    "text": "text",
    "date": "dates",
    "id": "a value of its own for nearly every row",
    "constant": "one value in all rows",
    "empty": "no value in any row",
    "mixed": "numbers and other text",
    "many": "more than 1,000 categories",
    "sparse": "mostly gaps",
}
_LEFT_OUT = {
    "text": "it holds text",
    "date": "it holds dates: write what matters of them, such as the weekday, into columns of numbers",
    "id": "nearly every row has a value of its own",
    "constant": "it has one value in all rows",
    "empty": "it has no value in any row",
    "sparse": "most rows have no value",
    "many": "it has more than 1,000 categories: set data.unknown = 'other' and data.min_rows to use it",
}


@dataclass(frozen=True)
class Survey:
    """What was seen of a table.

    Attributes:
        columns: by name, but for index columns.
        index: index columns, as pandas writes them.
        categories: columns of numbers that are categories in pandas.
        num_rows: rows that were looked at.
        dialect: of a CSV file; None for other files.
    """

    columns: Mapping[str, Column]
    index: list[str]
    num_rows: int
    categories: Sequence[str] = ()
    dialect: Dialect | None = None


def survey(path: Path) -> Survey:
    """Look at a CSV file with a header, a Parquet file, or JSON Lines.

    Raises:
        DataError: it is not one, or it has no rows.
        UsageError: pyarrow is not installed.
        OSError: the file cannot be read.
    """
    dialect: Dialect | None = None
    types: dict[str, str] = {}
    categories: list[str] = []
    if path.suffix.lower() == ".parquet":
        names, types, categories, rows = _parquet_rows(path)
    else:
        file = CsvFile(path)
        names, dialect = file.header, file.dialect
        rows = _csv_rows(file)
    index = [name for name in names if name == PARQUET_INDEX or (name in INDEX_NAMES and name == names[0])]
    columns = {name: Column(name, type=types.get(name, "")) for name in names}
    num_rows = 0
    for row in islice(rows, MOST_ROWS):
        num_rows += 1
        for name, value in zip(names, row, strict=True):
            columns[name].add(value)
    if not num_rows:
        raise DataError(f"{path} has no rows{'' if path.suffix.lower() == '.parquet' else ' after its header'}")
    named = {name: each for name, each in columns.items() if name not in index}
    return Survey(named, index, num_rows, categories, dialect)


def survey_of_objects(rows: Iterable[Mapping[str, Any]]) -> Survey:
    """Look at objects as JSON Lines have them."""
    columns: dict[str, Column] = {}
    num_rows = 0
    for row in islice(rows, MOST_ROWS):
        for name, value in row.items():
            columns.setdefault(name, Column(name, gaps=num_rows)).add(_value(value))
        num_rows += 1
        for column in columns.values():
            column.gaps += num_rows - column.filled - column.gaps
    return Survey(columns, [], num_rows)


def _csv_rows(file: CsvFile) -> Iterator[list[str | float | None]]:
    decimal = file.dialect.decimal
    for _, cells in file.lines():
        yield [_cell(cell.strip(), decimal) for cell in cells]


def _cell(cell: str, decimal: str) -> str | float | None:
    try:
        return parse_number(cell, decimal)
    except ValueError:
        return None if is_missing(cell) else cell


_Rows = Iterator[list[str | float | None]]


def _parquet_rows(path: Path) -> tuple[list[str], dict[str, str], list[str], _Rows]:
    """The columns: all, those of other types than numbers and text, and categories that are numbers; and the rows."""
    require_extra("parquet")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    from litelambda_serving.scoring.formats.parquet import holds_categories, holds_numbers, values_of

    try:
        file = ParquetFile(path)
    except ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error
    schema = file.schema_arrow
    others = [each for each in schema if not holds_categories(each.type) and not holds_numbers(each.type)]
    described = (schema.pandas_metadata or {}).get("columns", [])
    marked = {each.get("field_name") for each in described if each.get("pandas_type") == "categorical"}
    categories = [each.name for each in schema if each.name in marked and holds_numbers(each.type)]

    def rows() -> _Rows:
        with file:
            for batch in file.iter_batches():
                read = [category_of if name in categories else _value for name in schema.names]
                for row in zip(*map(values_of, batch.columns), strict=True):
                    yield [each(value) for each, value in zip(read, row, strict=True)]

    return list(schema.names), {each.name: str(each.type) for each in others}, categories, rows()


def _value(value: Any) -> str | float | None:
    if value is None or isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return category_of(value)
    if isinstance(value, int | float):
        return float(value) if isfinite(value) else None
    return str(value)
