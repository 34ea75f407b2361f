"""Tables: a row's columns, numbers and categories, become one row of the model's only input.

A number becomes number * scale + offset, in float64 and then rounded to float32: years and times lose nothing. A
category becomes a one-hot part of the row, or the number of its place in the vocabulary. The manifest's document:

    {"kind": "table", "label": "species", "columns": [
        {"name": "mass", "type": "number", "scale": 0.5, "offset": -1.0, "missing": 4200.0},
        {"name": "island", "type": "category", "vocabulary": ["Biscoe", "Dream"], "encoding": "one_hot",
         "unknown": "refuse", "missing": "Dream"}]}

`missing` is what a missing value counts as; without it they are refused. `unknown` says what becomes of a category
that is not in the vocabulary: "refuse", "zeros" (one-hot only), or "other", which is a place after the vocabulary.
A large vocabulary is a file of the version, a JSON list, that `vocabulary_file` names.
"""

from __future__ import annotations

import struct
from itertools import chain
from math import isfinite

from litelambda_serving.errors import ManifestError, TensorError
from litelambda_serving.preprocessing.base import Field, FieldError, Preprocessor, shown
from litelambda_serving.preprocessing.numbers import to_dtype
from litelambda_serving.tensor import DTYPES, Tensor, TensorSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["UNKNOWN_RULES", "Table", "category_of"]

UNKNOWN_RULES = ("refuse", "zeros", "other")
"""What becomes of categories that are not in a vocabulary."""

_LARGEST = 3.4e38  # of float32


class Table(Preprocessor):
    """Prepares an input from the columns of a table.

    Attributes:
        widths: how many of the input's values each column becomes.
    """

    def __init__(self, spec: TensorSpec, document: Mapping[str, Any], assets: Mapping[str, bytes]) -> None:
        """Read the columns.

        Raises:
            ManifestError: a column lacks what its type needs, or all together do not make up a row of the input.
        """
        super().__init__(spec)
        self._columns = [_open_column(each, assets) for each in document["columns"]]
        self.fields = tuple(column.field for column in self._columns)
        if len({field.name for field in self.fields}) < len(self.fields):
            raise ManifestError("two columns have the same name")
        label = document.get("label", ())
        self.ignored = frozenset([label] if type(label) is str else label)
        self.widths = tuple([column.width for column in self._columns])
        width = sum(self.widths)
        if width != spec.row_values:
            raise ManifestError(f"its columns make up rows of {width} values, the input has {spec.row_values}")
        self._of_indices = any(isinstance(column, _Category) and not column.one_hot for column in self._columns)
        if self._of_indices and (
            spec.dtype.kind != "int" or not all(isinstance(c, _Category) and not c.one_hot for c in self._columns)
        ):
            raise ManifestError("encoding 'index' needs categories in all columns, and an input of integers")
        if all(isinstance(column, _Number) for column in self._columns):
            self.raw_spec = TensorSpec(spec.name, DTYPES["float64"], spec.shape)

    def prepare(self, columns: Sequence[Sequence[Any]]) -> Tensor:
        """See `Preprocessor.prepare`."""
        rows = len(columns[0])
        if not self.spec.batched and self.spec.shape[:1] != (rows,):
            raise TensorError(f"the model takes exactly {self.spec.shape[0]} rows at once, got {rows}")
        pieces = [column.prepare(values) for column, values in zip(self._columns, columns, strict=True)]
        return Tensor(self.spec.dtype, self.spec.shape_of(rows), self._joined(pieces))

    def _joined(self, pieces: Sequence[Sequence[bytes]]) -> bytes:
        """The input's bytes, from what each column has for each row."""
        data = b"".join(chain.from_iterable(zip(*pieces, strict=True)))
        if not self._of_indices:
            return to_dtype(data, self.spec)
        if self.spec.dtype.format == "i":
            return data
        count = len(data) // 4
        return struct.pack(f"<{count}{self.spec.dtype.format}", *struct.unpack(f"<{count}i", data))

    def prepare_array(self, values: Sequence[float], shape: Sequence[int]) -> Tensor:
        """See `Preprocessor.prepare_array`: a row of numbers has the columns in their order."""
        if self.raw_spec is None:
            return super().prepare_array(values, shape)
        count = len(self.fields)
        if tuple(shape) != self.spec.shape_of(shape[0] if shape else 0):
            raise TensorError(f"input {self.spec.name!r}: expected rows of {count} numbers, got shape {list(shape)}")
        flat = list(values)
        return self.prepare([flat[place::count] for place in range(count)])


class _Number:
    """A column of numbers."""

    width = 1

    def __init__(self, name: str, document: Mapping[str, Any]) -> None:
        self.field = Field(name, "number")
        self._scale, self._offset = (
            _finite(document.get(key, default), f"{key} of column {name!r}")
            for key, default in (("scale", 1.0), ("offset", 0.0))
        )
        missing = document.get("missing")
        self._missing = None if missing is None else _finite(missing, f"missing of column {name!r}")

    def prepare(self, values: Sequence[Any]) -> list[bytes]:
        """The four bytes of each row's value."""
        try:
            if not set(map(type, values)) <= {int, float} or not isfinite(sum(values)):
                values = [self._checked(row, value) for row, value in enumerate(values)]
            scale, offset = self._scale, self._offset
            data = struct.pack(f"<{len(values)}f", *[value * scale + offset for value in values])
        except (struct.error, OverflowError):
            row = next((row for row, value in enumerate(values) if not self._fits(value)), 0)
            raise FieldError(self.field.name, row, f"{shown(values[row])} is outside the range of float32") from None
        return [data[start : start + 4] for start in range(0, len(data), 4)]

    def _checked(self, row: int, value: Any) -> float:
        """The value, or what a missing one counts as; NaN is how arrays say that a value is missing."""
        kind = type(value)
        if value is None or (kind is float and value != value):  # noqa: PLR0124 - NaN alone differs from itself
            if self._missing is None:
                raise FieldError(self.field.name, row, "is missing, expected a number")
            return self._missing
        if kind not in (int, float):
            raise FieldError(self.field.name, row, f"expected a number, got {_said(value)}")
        if kind is float and not isfinite(value):
            raise FieldError(self.field.name, row, f"{value} is not a finite number")
        number: float = value
        return number

    def _fits(self, value: float) -> bool:
        try:
            return abs(value * self._scale + self._offset) <= _LARGEST
        except OverflowError:  # an integer of hundreds of digits
            return False


class _Category:
    """A column of categories."""

    def __init__(self, name: str, document: Mapping[str, Any], assets: Mapping[str, bytes]) -> None:
        self.field = Field(name, "category")
        vocabulary = _vocabulary(name, document, assets)
        unknown, encoding = document.get("unknown", "refuse"), document.get("encoding", "one_hot")
        if unknown not in UNKNOWN_RULES or encoding not in ("one_hot", "index"):
            raise ManifestError(f"column {name!r}: unknown {unknown!r} or encoding {encoding!r} cannot be read")
        self.one_hot = encoding == "one_hot"
        places = len(vocabulary) + (unknown == "other")
        self.width = places if self.one_hot else 1
        if self.one_hot:
            empty = bytes(4 * places)
            one = struct.pack("<f", 1.0)
            self._pieces = {
                text: empty[: 4 * place] + one + empty[4 * (place + 1) :] for place, text in enumerate(vocabulary)
            }
            other = empty[:-4] + one
        else:
            self._pieces = {text: struct.pack("<i", place) for place, text in enumerate(vocabulary)}
            empty, other = b"", struct.pack("<i", places - 1)
        if unknown == "zeros" and not self.one_hot:
            raise ManifestError(f"column {name!r}: unknown 'zeros' needs encoding 'one_hot'")
        self._unknown = {"refuse": None, "zeros": empty, "other": other}[unknown]
        missing = document.get("missing")
        if missing is not None and missing not in self._pieces and self._unknown is None:
            raise ManifestError(f"column {name!r}: missing {shown(missing)} is not in the vocabulary")
        self._missing = None if missing is None else self._pieces.get(missing, self._unknown)

    def prepare(self, values: Sequence[Any]) -> list[bytes]:
        """What each row's category becomes."""
        known = self._pieces
        try:
            # The usual case: text as it is in the vocabulary. True, 1 and 1.0 are the same key, but no text.
            return [known[value] for value in values]
        except (KeyError, TypeError):
            return [self._piece(row, value) for row, value in enumerate(values)]

    def _piece(self, row: int, value: Any) -> bytes:
        try:
            text = category_of(value)
        except ValueError as error:
            raise FieldError(self.field.name, row, str(error)) from None
        if text is None:
            if self._missing is None:
                raise FieldError(self.field.name, row, "is missing, expected a category")
            return self._missing
        piece = self._pieces.get(text, self._unknown)
        if piece is None:
            known = ", ".join(map(shown, list(self._pieces)[:10])) + (", …" if len(self._pieces) > 10 else "")
            raise FieldError(self.field.name, row, f"unknown category {shown(text)}: expected one of {known}")
        return piece


def category_of(value: Any) -> str | None:
    """A category's text, as vocabularies have it; None for a missing one.

    Whole numbers and truth values are the same category however a file writes them.

    >>> category_of(" Dream "), category_of(3), category_of("3.0"), category_of(True), category_of("")
    ('Dream', '3', '3', 'true', None)

    Raises:
        ValueError: neither text, nor a number, nor a truth value.
    """
    kind = type(value)
    if value is None or (kind is float and value != value):  # noqa: PLR0124 - NaN alone differs from itself
        return None
    if kind is str:
        text: str = value.strip()
    elif kind is bool or kind is int or kind is float:
        text = repr(value)
    else:
        raise ValueError(f"expected a category, got {_said(value)}")
    if text in ("True", "TRUE", "False", "FALSE"):
        return text.lower()
    whole = text.removesuffix(".0")
    return (whole if whole.removeprefix("-").isdecimal() else text) or None


def _said(value: Any) -> str:
    return f"the text {shown(value)}" if type(value) is str else shown(value)


def _open_column(document: Mapping[str, Any], assets: Mapping[str, bytes]) -> _Number | _Category:
    name, kind = document["name"], document["type"]
    if type(name) is not str or not name:
        raise ManifestError(f"a column's name must be text, got {shown(name)}")
    if kind == "number":
        return _Number(name, document)
    if kind == "category":
        return _Category(name, document, assets)
    raise ManifestError(f"column {name!r}: type {shown(kind)} is neither 'number' nor 'category'")


def _vocabulary(name: str, document: Mapping[str, Any], assets: Mapping[str, bytes]) -> list[str]:
    vocabulary = document.get("vocabulary")
    if vocabulary is None:
        from litelambda_serving.json_codec import loads

        vocabulary = loads(assets[document["vocabulary_file"]])
    if type(vocabulary) is not list or not vocabulary or {*map(type, vocabulary)} != {str}:
        raise ManifestError(f"column {name!r}: its vocabulary must be a list of texts")
    if len({*vocabulary}) < len(vocabulary):
        raise ManifestError(f"column {name!r}: its vocabulary has a category twice")
    return vocabulary


def _finite(value: Any, what: str) -> float:
    """A number."""
    if type(value) not in (int, float) or not abs(value) <= _LARGEST:
        raise ManifestError(f"{what}: expected a finite number, got {shown(value)}")
    number: float = value
    return number
