"""JSON values that pass through: their numbers are written with the characters that they came with.

Parsers make doubles of what has a point, an exponent or more than 64 bits: an id of 30 digits comes out as another, and
19.90 as 19.9. So where fields have such a number, the line is read once more, its numbers as text.
"""

from __future__ import annotations

import re
from json import JSONDecoder
from typing import Any

import orjson

from litelambda_serving.errors import TensorError

__all__ = ["JsonNumber", "Tokens", "dump_fields"]


class JsonNumber(str):
    """A number as it stands in its JSON text."""

    __slots__ = ()


_read = JSONDecoder(parse_int=JsonNumber, parse_float=JsonNumber).decode


def dump_fields(fields: dict[str, Any]) -> bytes:
    """An object as compact JSON, each `JsonNumber` as it is."""
    return orjson.dumps(fields, _verbatim, orjson.OPT_PASSTHROUGH_SUBCLASS)


def _verbatim(value: Any) -> orjson.Fragment:
    return orjson.Fragment(str(value))


class Tokens:
    """Reads a line's fields once more where that makes a difference."""

    def __init__(self, name: str) -> None:
        """For lines that hold an input of this name too."""
        self._name = name
        # An array of numbers: it ends with the last bracket before anything else comes.
        self._input = re.compile(rb'"%b"\s*:\s*(\[[\[\]0-9eE+\-.,\s]*\])' % re.escape(name.encode()))

    def as_they_came(self, line: bytes, extra: dict[str, Any]) -> dict[str, Any]:
        """The same fields, their numbers as text where a parser may have changed one.

        Args:
            line: an object in valid JSON.
            extra: some of its fields.

        Raises:
            TensorError: they are nested so deeply that they cannot be written.
        """
        try:
            if _may_differ(extra, zero_may=b"-0" in line):
                fields = self._without_input(line) or _read(line.decode())
                extra = {name: fields[name] for name in extra}
            if not {dict, list}.isdisjoint(map(type, extra.values())):
                dump_fields(extra)
        except (RecursionError, TypeError) as error:
            raise TensorError("a field that passes through is nested too deeply") from error
        return extra

    def _without_input(self, line: bytes) -> dict[str, Any] | None:
        """All fields but the first input, which has most of the line's numbers; None where it is not found."""
        found = self._input.search(line)
        if found is None:
            return None
        start, stop = found.span(1)
        try:
            fields: dict[str, Any] = _read((line[:start] + b"null" + line[stop:]).decode())
        except ValueError:  # a field of that name, deeper in the line, whose array holds more than numbers
            return None
        return fields if fields.get(self._name, found) is None else None


def _may_differ(value: Any, *, zero_may: bool) -> bool:
    """Whether a number is among the values that may be written otherwise than it came: no integer but -0 is."""
    kind = type(value)
    if kind is dict or kind is list:
        return any(_may_differ(each, zero_may=zero_may) for each in (value.values() if kind is dict else value))
    return kind is float or (kind is int and not value and zero_may)
