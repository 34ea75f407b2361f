"""CSV without a header: requests' rows as JSON would have them, and predictions as lines.

A row has the columns of the model's preprocessing in their order; without any, the values of its inputs, row-major.
Imported with the first such body.
"""

from __future__ import annotations

import csv
from io import StringIO
from math import prod

from litelambda_serving.errors import MalformedRequestError, TensorError
from litelambda_serving.json_codec import dumps
from litelambda_serving.preprocessing.base import Field
from litelambda_serving.preprocessing.cells import is_number, parse_cell, parse_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.preprocessing import RawInputs

__all__ = ["read_instances", "write_rows"]


def read_instances(
    body: bytes | bytearray, manifest: Manifest, raw_inputs: RawInputs | None, *, as_they_are: bool = False
) -> list[Any]:
    """The instances of a CSV body.

    Args:
        body: UTF-8 text, cells separated by commas.
        manifest: of the model.
        raw_inputs: what prepares its inputs; None where rows have the model's own values.
        as_they_are: whether the model's inputs do not say what rows have: the function's own code prepares them.

    Raises:
        MalformedRequestError: the body is not CSV.
        TensorError: a row has another number of cells, or a cell is not what its column takes; the message says which.
    """
    rows = _read(body)
    if as_they_are:
        return [[parse_number(cell) if is_number(cell) else cell for cell in row] for _, row in rows]
    fields = list(raw_inputs.fields.values()) if raw_inputs else _fields_of(manifest)
    if rows and [cell.strip() for cell in rows[0][1]] == [field.name for field in fields]:
        raise TensorError("the first row is a header: send rows alone, without one")
    columns = [field for field in fields for _ in range(prod(field.shape))]
    return [_instance(_cells(row, columns, line), fields) for line, row in rows]


def write_rows(predictions: Sequence[Any]) -> str:
    r"""A line for each prediction: all its values in their order, however they are nested.

    >>> write_rows([[0.5, 1], {"label": "a, b", "score": 1e-9}])
    '0.5,1\n"a, b",1e-09\n'
    """
    text = StringIO()
    writer = csv.writer(text, lineterminator="\n")
    for prediction in predictions:
        writer.writerow([value if type(value) is str else dumps(value) for value in _values(prediction)])
    return text.getvalue()


def _read(body: bytes | bytearray) -> list[tuple[int, list[str]]]:
    """The rows that are not empty, each with its line."""
    try:
        reader = csv.reader(StringIO(body.decode("utf-8-sig"), newline=""), strict=True)
        return [(reader.line_num, row) for row in reader if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise MalformedRequestError(f"the body is not CSV in UTF-8: {error}") from None


def _fields_of(manifest: Manifest) -> list[Field]:
    """The inputs as fields, where nothing prepares them."""
    inputs = manifest.signatures[manifest.default_signature].inputs
    return [
        Field(
            spec.name,
            "text" if spec.dtype.kind == "string" else "tensor",
            tuple(spec.shape[1:] if spec.batched else spec.shape),
        )
        for spec in inputs
    ]


def _cells(row: list[str], fields: Sequence[Field], line: int) -> list[Any]:
    if len(row) != len(fields):
        raise TensorError(f"line {line}: a row has {len(fields)} cells, got {len(row)}")
    values = []
    for column, (cell, field) in enumerate(zip(row, fields, strict=True), 1):
        try:
            values.append(_number(cell) if field.type == "tensor" else parse_cell(cell, field))
        except ValueError as error:
            raise TensorError(f"line {line}, column {column} ({field.name}): {error}") from None
    return values


def _number(cell: str) -> float:
    """The number of a cell: an integer where it is written as one."""
    value = parse_number(cell.strip())
    text = cell.strip().lstrip("+-")
    return int(cell) if text.isascii() and text.isdecimal() else value


def _instance(cells: list[Any], fields: Sequence[Field]) -> Any:
    """A row as JSON has it: the value of its only field, or an object with all of them."""
    values, start = {}, 0
    for field in fields:
        end = start + prod(field.shape)
        values[field.name] = _nested(cells[start:end], field.shape)
        start = end
    return values if len(fields) > 1 else values[fields[0].name]


def _nested(values: list[Any], shape: Sequence[int]) -> Any:
    """Values in the shape of a row; the value itself where that has none."""
    if not shape:
        return values[0]
    if len(shape) == 1:
        return values
    step = len(values) // shape[0]
    return [_nested(values[start : start + step], shape[1:]) for start in range(0, len(values), step)]


def _values(prediction: Any) -> list[Any]:
    if type(prediction) is dict:
        prediction = list(prediction.values())
    if type(prediction) is not list:
        return [prediction]
    return [value for each in prediction for value in _values(each)]
