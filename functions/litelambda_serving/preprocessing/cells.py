"""Cells of text files, such as CSV: from text to the raw values that JSON would have, and what tells cells apart.

The build reads a table's cells through here, and so does batch scoring.
"""

from __future__ import annotations

import csv
from math import isfinite

from litelambda_serving.preprocessing.base import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from typing import Any

    from litelambda_serving.preprocessing.base import Field

__all__ = [
    "DELIMITERS",
    "INDEX_NAMES",
    "MISSING",
    "Dialect",
    "is_missing",
    "is_number",
    "parse_cell",
    "parse_number",
    "sniff",
]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""How tables say that a value is missing, in lower case."""

INDEX_NAMES = frozenset({"", "Unnamed: 0"})
"""What pandas calls the column of row numbers that it writes first unless told not to."""

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "bar": "|"}
"""What may stand between cells, by name."""


class Dialect:
    """How a file writes its cells.

    Attributes:
        delimiter: what stands between them.
        decimal: the decimal mark of numbers, "." or ",".
    """

    __slots__ = ("decimal", "delimiter")

    def __init__(self, delimiter: str = ",", decimal: str = ".") -> None:
        self.delimiter = delimiter
        self.decimal = decimal

    @property
    def is_plain(self) -> bool:
        """Whether cells are separated by commas, and numbers have decimal points."""
        return self.delimiter == "," and self.decimal == "."

    def describe(self) -> str:
        """For people.

        >>> Dialect(";", ",").describe()
        'cells separated by semicolons, decimal commas'
        """
        name = next(name for name, delimiter in DELIMITERS.items() if delimiter == self.delimiter)
        return f"cells separated by {name}s, decimal {'points' if self.decimal == '.' else 'commas'}"


def sniff(lines: Sequence[str], names: Collection[str] = (), delimiter: str = "", decimal: str = "") -> Dialect:
    """The dialect of a file.

    A header that holds the names that are looked for decides, then rows that are as wide as it is, then the number of
    columns. Decimal commas are seen only where no number has a point, and where commas separate no cells.

    Args:
        lines: its first, the header to begin with; the last may be cut off.
        names: of columns that it should have.
        delimiter: where it is known.
        decimal: where it is known.

    >>> sniff(["age;mass", "3;4,5"]).describe()
    'cells separated by semicolons, decimal commas'
    """
    if not delimiter:
        delimiter = max(DELIMITERS.values(), key=lambda each: _fitness(lines, each, names))
    return Dialect(delimiter, decimal or _decimal_mark(lines, delimiter))


def _fitness(lines: Sequence[str], delimiter: str, names: Collection[str]) -> tuple[int, bool, int]:
    rows = list(_rows(lines, delimiter))
    header = [name.strip() for name in rows[0]] if rows else []
    consistent = len(header) > 1 and all(len(row) == len(header) for row in rows[1:])
    return len({*names} & {*header}), consistent, len(header)


def _decimal_mark(lines: Sequence[str], delimiter: str) -> str:
    if delimiter == ",":
        return "."
    cells = [cell for row in list(_rows(lines, delimiter))[1:] for cell in row]
    marks = {mark for mark in ".," if any(mark in cell and is_number(cell, mark) for cell in cells)}
    return "," if marks == {","} else "."


def _rows(lines: Iterable[str], delimiter: str) -> Iterator[list[str]]:
    try:
        yield from (row for row in csv.reader(lines, delimiter=delimiter) if row)
    except csv.Error:
        return  # what is wrong is said when the file is read


def is_missing(text: str) -> bool:
    """Whether a cell has no value.

    >>> is_missing(" "), is_missing("N/A"), is_missing("0")
    (True, True, False)
    """
    return text.strip().lower() in MISSING


def is_number(text: str, decimal: str = ".") -> bool:
    """Whether a cell is a finite number.

    >>> is_number("3,5"), is_number("3,5", ",")
    (False, True)
    """
    try:
        parse_number(text, decimal)
    except ValueError:
        return False
    return True


def parse_cell(text: str, field: Field, decimal: str = ".") -> Any:
    """The raw value of a cell; None for a missing one.

    >>> from litelambda_serving.preprocessing.base import Field
    >>> parse_cell(" 3.5 ", Field("age", "number")), parse_cell("NA", Field("age", "number"))
    (3.5, None)

    Raises:
        ValueError: it is not a number, where the field takes numbers; or the field takes pictures.
    """
    if field.type == "text":
        return text
    if field.type == "image":
        raise ValueError("a cell cannot hold a picture: score its file, or JSON Lines with its base64")
    text = text.strip()
    if text.lower() in MISSING:
        return None
    return text if field.type == "category" else parse_number(text, decimal)


def parse_number(text: str, decimal: str = ".") -> float:
    """The number of a cell.

    >>> parse_number("1e3"), parse_number("-0,5", ",")
    (1000.0, -0.5)

    Raises:
        ValueError: it is not a finite number.
    """
    if decimal == ",":
        if "." in text:
            raise ValueError(f"{shown(text)} has a decimal point, in a file of decimal commas")
        text = text.replace(",", ".")
    try:
        value = float(text.replace("_", "?"))  # an underscore between digits is Python's own way of writing a number
    except ValueError:
        raise ValueError(f"{shown(text)} is not a number") from None
    if not isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value
