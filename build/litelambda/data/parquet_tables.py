"""Reads tables in Apache Parquet: as CSV tables, but their columns have types."""

from __future__ import annotations

from collections.abc import Iterator
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.common.extras import require_extra
from litelambda.data.stored_rows import RawDataset, needs_streaming
from litelambda.data.table_columns import TableColumn, choose_columns, label_names
from litelambda.data.tables import TableRows
from litelambda.recipe.sections import ParquetData
from litelambda_serving.preprocessing.base import shown
from litelambda_serving.preprocessing.table import category_of

_ROWS_AT_ONCE = 4096


def read_parquet(path: Path, settings: ParquetData) -> RawDataset:
    """Read a Parquet file.

    Raises:
        DataError: it is not one, lacks a column, or has a column of a type that is neither numbers nor categories.
        UsageError: pyarrow is not installed.
        OSError: the file cannot be read.
    """
    require_extra("parquet")
    from pyarrow import ArrowException
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(path) as file:
            schema = file.schema_arrow
            names, notes = choose_columns(path, settings, schema.names)
            columns = [TableColumn(name, _type_of(path, settings, schema.field(name))) for name in names]
            num_bytes = 8 * file.metadata.num_rows * len(columns)
            streamed = needs_streaming(num_bytes) if settings.streaming is None else settings.streaming
            rows = TableRows(path, settings, columns, "row")
            return rows.dataset(_parts(file, rows), notes, streamed=streamed)
    except ArrowException as error:
        raise DataError(f"{path} is not a readable Parquet file: {error}") from error


def _type_of(path: Path, settings: ParquetData, field: Any) -> str:
    from litelambda_serving.scoring.formats.parquet import holds_categories, holds_numbers

    if holds_categories(field.type) or field.name in settings.categories:
        return "category"
    if holds_numbers(field.type):
        return "number"
    raise DataError(
        f"{path}: column {field.name!r} is of type {field.type}, neither numbers nor text: change it, or leave it out "
        "with data.features"
    )


def _parts(file: Any, rows: TableRows) -> Iterator[NDArray[np.float64]]:
    """The values, some thousand rows at a time."""
    from litelambda_serving.scoring.formats.parquet import values_of

    labels, first = label_names(rows.settings), 1
    single = isinstance(rows.settings.label, str)
    names = [*(column.name for column in rows.columns), *labels]
    for batch in file.iter_batches(_ROWS_AT_ONCE, columns=names):
        values = np.empty((batch.num_rows, len(rows.columns)))
        for place, column in enumerate(rows.columns):
            values[:, place] = [column.stored(each) for each in values_of(batch.column(column.name))]
        if np.isinf(values).any():
            row, place = (int(each) for each in np.argwhere(np.isinf(values))[0])
            raise DataError(f"{rows.where(first + row)}: column {rows.columns[place].name!r} holds an infinity")
        places = range(first, first + batch.num_rows)
        found = [
            [
                _target(rows, place, name, value)
                for place, value in zip(places, values_of(batch.column(name)), strict=True)
            ]
            for name in labels
        ]
        targets = found[0] if single else [*zip(*found, strict=True)]
        yield rows.kept(values, targets, places)
        first += batch.num_rows


def _target(rows: TableRows, place: int, label: str, value: Any) -> Any:
    settings = rows.settings
    names_several = settings.task == "multi_label" and isinstance(settings.label, str)
    if settings.task == "classification" or names_several:
        text = category_of(value)
        if text is None and names_several:
            return ""  # none of the classes
        if text is None:
            raise DataError(f"{rows.where(place)}: column {label!r}, which is to be predicted, has no value")
        return text
    if type(value) is bool:
        return int(value)
    if type(value) not in (int, float) or not isfinite(value):
        raise DataError(f"{rows.where(place)}: column {label!r} holds {shown(value)}, expected a finite number")
    return value
