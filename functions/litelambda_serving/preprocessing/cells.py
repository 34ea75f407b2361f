"""Cells of text files, such as CSV: from text to the raw values that JSON would have.

The build reads a table's cells through here, and so does batch scoring.
"""

from __future__ import annotations

from math import isfinite

from litelambda_serving.preprocessing.base import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.preprocessing.base import Field

__all__ = ["MISSING", "parse_cell"]

MISSING = frozenset({"", "na", "n/a", "nan", "null", "none", "?"})
"""How tables say that a value is missing, in lower case."""


def parse_cell(text: str, field: Field) -> Any:
    """The raw value of a cell; None for a missing one.

    >>> from litelambda_serving.preprocessing.base import Field
    >>> parse_cell(" 3.5 ", Field("age", "number")), parse_cell("NA", Field("age", "number"))
    (3.5, None)

    Raises:
        ValueError: it is not a number, where the field takes numbers.
    """
    if field.type == "text":
        return text
    text = text.strip()
    if text.lower() in MISSING:
        return None
    if field.type == "category":
        return text
    try:
        value = float(text.replace("_", "?"))  # an underscore between digits is Python's own way of writing a number
    except ValueError:
        raise ValueError(f"{shown(text)} is not a number") from None
    if not isfinite(value):
        raise ValueError(f"{shown(text)} is not a finite number")
    return value
