"""Tables in Apache Parquet, by pyarrow: a column for each field, in any order; the others pass through.

pyarrow is not part of the deployed batch function, whose package has no room for it: score such files with the
command, or convert them.
"""

from __future__ import annotations

from typing import Any

__all__ = ["holds_categories", "holds_numbers", "values_of"]


def holds_categories(arrow_type: Any) -> bool:
    """Whether columns of a type hold text or truth values."""
    from pyarrow import types

    if types.is_dictionary(arrow_type):
        arrow_type = arrow_type.value_type
    return bool(types.is_string(arrow_type) or types.is_large_string(arrow_type) or types.is_boolean(arrow_type))


def holds_numbers(arrow_type: Any) -> bool:
    """Whether columns of a type hold numbers."""
    from pyarrow import types

    return bool(types.is_integer(arrow_type) or types.is_floating(arrow_type) or types.is_decimal(arrow_type))


def values_of(column: Any) -> list[Any]:
    """The values of a column as JSON would have them; None for a missing one."""
    from pyarrow import types

    if types.is_decimal(column.type) or types.is_float16(column.type):
        column = column.cast("float64")
    values: list[Any] = column.to_pylist()
    return values
