"""Rows of numbers straight out of their JSON text: no Python object for each value, to which most of the time goes.

It answers for what is common and right. To all else it says None, and a parser that makes objects tells what it is.
"""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import simdjson

from litelambda_serving.scoring.columns import row_shape
from litelambda_serving.scoring.formats.text import BYTE_ORDER_MARK
from litelambda_serving.scoring.formats.values import bytes_of, is_surely_finite

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.tensor import TensorSpec

__all__ = ["JsonNumbers"]

# The widest type of each kind that the parser hands out, and its name for it.
_WIDE: dict[str, tuple[np.dtype[Any], Literal["d", "i"]]] = {
    "float": (np.dtype(np.float64), "d"),
    "int": (np.dtype(np.int64), "i"),
}
_MAX_TEXT_BYTES = 4 * 1024 * 1024  # the parser takes thirteen times the memory, and keeps it
_OPENING, _COMMA, _CLOSING = b"[,]"
_NUMBERS_AND_SPACE = b"0123456789+-.eE \t\r"
_ERRORS = (ValueError, TypeError, RuntimeError)  # the parser's: of syntax, of kinds of values, of depth and size


class JsonNumbers:
    """Reads one input's value: an array of numbers of the input's shape, alone or as a member of an object.

    What is read of a row is in the parser's wide type. The rows of a chunk get the model's type together: numpy lets
    other threads have the interpreter's lock in every longer call, which they take once for each row otherwise.

    Source: Langdale and Lemire 2019, Parsing gigabytes of JSON per second.
    """

    def __init__(self, spec: TensorSpec) -> None:
        self._spec = spec
        self._shape = row_shape(spec)
        self._dtype = np.dtype(spec.dtype.name)
        self._wide, self._wide_name = _WIDE[spec.dtype.kind]
        self._row_bytes = prod(self._shape) * self._wide.itemsize
        self._brackets = _skeleton(self._shape)
        self._num_brackets = self._brackets.count(b"[")
        self._parser = simdjson.Parser()
        self._text = bytearray()

    @staticmethod
    def can_read(spec: TensorSpec) -> bool:
        """Whether the input is one for this class."""
        return spec.dtype.kind in _WIDE and spec.dtype.name != "uint64" and len(row_shape(spec)) > 0

    def __reduce__(self) -> tuple[type[JsonNumbers], tuple[TensorSpec]]:
        return JsonNumbers, (self._spec,)

    def read(self, line: bytes) -> tuple[memoryview, dict[str, Any]] | None:
        """The row's values, in the wide type, and the object's other members.

        Returns:
            None where it is anything but valid JSON of the right shape.
        """
        if line.startswith(BYTE_ORDER_MARK):  # the parser would skip it
            return None
        if not self._has_brackets(line, 0, len(line), 1):
            return None
        try:
            value = self._parser.parse(line)
            if isinstance(value, simdjson.Array):
                return self._values(value, 1), {}
            return self._member(value) if isinstance(value, simdjson.Object) else None
        except _ERRORS:
            return None

    def read_lines(self, data: bytes, spans: Sequence[tuple[int, int]]) -> memoryview | None:
        """The values of several rows, each an array on a line of its own; None where they are anything else.

        Args:
            data: text that holds the rows.
            spans: where each line starts and ends, its newline left out; one after the other.
        """
        begin, end = spans[0][0], spans[-1][1]
        if not self._has_brackets(data, begin, end, len(spans)):
            return None
        try:
            rows: Any = self._parser.parse(self._as_array(data, spans))
            # What has a length and is not an array of numbers fails at `_values`, what has none here.
            if list(map(len, rows)) != [self._shape[0]] * len(spans):
                return None
            return self._values(rows, len(spans))
        except _ERRORS:
            return None

    def _as_array(self, data: bytes, spans: Sequence[tuple[int, int]]) -> memoryview:
        """Lines as the elements of one array, in memory that is used again: commas for newlines, brackets around."""
        begin, end = spans[0][0], spans[-1][1]
        size = end - begin + 2
        if len(self._text) < size:
            self._text = bytearray(size)
        text = memoryview(self._text)[:size]
        text[1:-1] = memoryview(data)[begin:end]
        text[0], text[-1] = _OPENING, _CLOSING
        for _start, stop in spans[:-1]:
            text[stop - begin + 1] = _COMMA
        return text

    def widen(self, row: bytes) -> memoryview:
        """A row in the model's type as `read` gives it."""
        return np.frombuffer(row, self._dtype).astype(self._wide).data

    def narrow(self, rows: bytes) -> memoryview | None:
        """Rows as `read` gives them in the model's type; None where it cannot hold one of the values."""
        wide = np.frombuffer(rows, self._wide)
        with np.errstate(all="ignore"):  # what does not fit shows in the result
            values = wide.astype(self._dtype)
            if self._wide_name == "d":
                fits = is_surely_finite(values) or bool(np.isfinite(values).all())
            else:
                fits = np.array_equal(values, wide)
        return bytes_of(values) if fits else None

    def _member(self, value: simdjson.Object) -> tuple[memoryview, dict[str, Any]] | None:
        names = list(value.keys())
        row = value[self._spec.name] if self._spec.name in names else None
        if len(set(names)) != len(names) or not isinstance(row, simdjson.Array):
            return None  # of two with one name, which counts is for one parser alone to say
        return self._values(row, 1), {name: _plain(value[name]) for name in names if name != self._spec.name}

    def _values(self, array: simdjson.Array, count: int) -> memoryview:
        values = memoryview(array.as_buffer(of_type=self._wide_name))
        if values.nbytes != count * self._row_bytes:
            raise ValueError(f"{values.nbytes} bytes of values instead of {count * self._row_bytes}")
        return values

    def _has_brackets(self, data: bytes, begin: int, end: int, count: int) -> bool:
        """Whether a text is not too long, and its brackets those of so many values of the input's shape and no more."""
        if end - begin > _MAX_TEXT_BYTES:
            return False
        if len(self._shape) > 1:
            skeleton = data[begin:end].translate(None, _NUMBERS_AND_SPACE)
            is_there = b"\n".join([self._brackets] * count) in skeleton
            return is_there and skeleton.count(b"[") == count * self._num_brackets
        place, find = begin - 1, data.find
        for _bracket in range(count):  # several times as fast as bytes.count
            place = find(b"[", place + 1, end)
            if place < 0:
                return False
        return find(b"[", place + 1, end) < 0


def _plain(value: Any) -> Any:
    if isinstance(value, simdjson.Object):
        return value.as_dict()
    return value.as_list() if isinstance(value, simdjson.Array) else value


def _skeleton(shape: tuple[int, ...]) -> bytes:
    """What is left of nested arrays of numbers without the numbers."""
    text = b""
    for size in reversed(shape):
        text = b"[" + b",".join([text] * size) + b"]"
    return text
