"""CSV with a header (RFC 4180).

Columns of an input are named after it: `age` for a single value, `image_0`, `image_1`, … for several. Where no column
is, a model with one input takes all columns that do not pass through, in their order. The others pass through.

Out: `line`, what passes through, a column for each value of each output (`probabilities_0`, …), `label`.
"""

from __future__ import annotations

import csv
import io
from math import inf
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from litelambda_serving.errors import TensorError
from litelambda_serving.preprocessing.cells import Dialect, sniff
from litelambda_serving.scoring.columns import column_of, row_shape
from litelambda_serving.scoring.errors import SchemaError, UnreadableInputError
from litelambda_serving.scoring.formats.base import BadRow, DecodedRows, Reader, RowSchema
from litelambda_serving.scoring.formats.coded_decoders import CodedCsvDecoder
from litelambda_serving.scoring.formats.csv_fields import CsvFieldsDecoder
from litelambda_serving.scoring.formats.csv_records import (
    first_record,
    is_utf8,
    records,
    whole_records,
    with_line_feeds,
)
from litelambda_serving.scoring.formats.text import BYTE_ORDER_MARK, LineSource, lines_of
from litelambda_serving.scoring.formats.values import RowPacker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.formats.base import Chunk, Decoder
    from litelambda_serving.scoring.job import Job
    from litelambda_serving.tensor import TensorSpec

__all__ = ["CsvDecoder", "CsvReader"]

_MAX_HEADER_BYTES = 4 * 1024 * 1024
_SNIFFED_BYTES, _SNIFFED_LINES = 64 * 1024, 200


class CsvReader(Reader):
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, schema: RowSchema) -> None:
        self._source = LineSource(job, info)
        self.total_bytes = self._source.total_bytes
        lead, header = self._read_header()
        self._header_lines = (lead + header).count(b"\n") if self._source.whole else 0
        self._header_bytes = len(lead + header) if self._source.whole else 0
        fields = schema.records
        dialect = self._dialect(len(lead), len(header), schema)
        self.form = dialect.describe()
        names = _names(header, dialect)
        self.decoder: Decoder
        if schema.coded_rows is not None:
            self.decoder = CodedCsvDecoder(names, schema.coded_rows, job.passthrough, dialect)
        elif fields is not None:
            self.decoder = CsvFieldsDecoder(names, fields, job.passthrough, dialect)
        else:
            self.decoder = CsvDecoder(names, schema, job.passthrough, dialect)

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """See `Reader.chunks`."""
        if position is None and self._source.whole:
            position = {"offset": self._header_bytes, "line": self._header_lines + 1}
        return self._source.chunks(position, whole_records)

    def _dialect(self, begin: int, header_bytes: int, schema: RowSchema) -> Dialect:
        """How the file writes its cells: the same for every shard of it."""
        end = begin + header_bytes + _SNIFFED_BYTES
        data = with_line_feeds(self._source.head(end))[:end]
        lines = data[begin:].decode("utf-8", "replace").split("\n")
        names = [*schema.records.fields] if schema.records is not None else [spec.name for spec in schema.inputs]
        whole = lines if len(data) < end else lines[:-1]
        return sniff([line + "\n" for line in whole[:_SNIFFED_LINES]], names)

    def _read_header(self) -> tuple[bytes, bytes]:
        """What is before the first record (a byte order mark, blank lines), and it."""
        size = 64 * 1024
        while size <= _MAX_HEADER_BYTES:
            data = with_line_feeds(self._source.head(size))
            begin = len(data) - len(data.removeprefix(BYTE_ORDER_MARK).lstrip(b"\r\n"))
            end = first_record(data, begin)
            if end or len(data) < size:
                return data[:begin], data[begin : end or len(data)]
            size *= 8
        raise UnreadableInputError(f"no CSV header within {_MAX_HEADER_BYTES} bytes")


def _names(header: bytes, dialect: Dialect) -> list[str]:
    """The names of the columns.

    Raises:
        UnreadableInputError: there is no header, or it is not CSV in UTF-8.
    """
    try:
        text = header.decode()
        names = next(csv.reader(io.StringIO(text, newline=""), delimiter=dialect.delimiter), [])
    except (UnicodeDecodeError, csv.Error) as error:
        raise UnreadableInputError(f"the CSV header is not CSV in UTF-8: {error}") from error
    if not text.strip():
        raise UnreadableInputError("the CSV file is empty: expected a header")
    if "\0" in text:
        raise UnreadableInputError("the CSV header holds NUL characters, as UTF-16 does: save the file as UTF-8")
    return names


class CsvDecoder:
    """See `base.Decoder`."""

    id_name = "line"

    def __init__(
        self,
        names: Sequence[str],
        schema: RowSchema,
        passthrough: Sequence[str] | None,
        dialect: Dialect | None = None,
    ) -> None:
        self._dialect = dialect or Dialect()
        self._width = len(names)
        self._places = _places(names, schema.inputs, passthrough)
        used = {place for places in self._places for place in places}
        others = [place for place in range(self._width) if place not in used]
        wanted = [names[place] for place in others] if passthrough is None else passthrough
        self._extras = [(names[place], place) for place in others if names[place] in wanted]
        self.passthrough: tuple[str, ...] | None = tuple(name for name, _ in self._extras)
        self._packers = [RowPacker(spec) for spec in schema.inputs]
        self._shapes = [row_shape(spec) for spec in schema.inputs]
        # The usual file: the values of the one input side by side. Their text is a JSON list without its brackets.
        first = self._places[0][0]
        together = list(range(first, first + len(self._places[0])))
        self._block = (first, first + len(together)) if len(self._places) == 1 and self._places[0] == together else None

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        columns: list[list[bytes]] = [[] for _ in self._packers]
        ids, extras, bad = [], [], []
        for index, (number, cells) in enumerate(self._records(chunk)):
            try:
                values, extra = cells if isinstance(cells, tuple) else self._decode_cells(cells)
            except TensorError as error:
                bad.append(BadRow(number, str(error), index))
            else:
                for column, value in zip(columns, values, strict=True):
                    column.append(value)
                ids.append(number)
                extras.append(extra)
        inputs = [column_of(b"".join(column)) for column in columns]
        return DecodedRows([(len(ids), inputs)], ids, extras if self._extras else None, bad)

    def _records(self, chunk: Chunk) -> Iterator[tuple[int, Any]]:
        """Line number and cells of each record; packed already where the fast way could take it."""
        data: bytes = chunk.payload
        if b'"' in data or not self._dialect.is_plain:
            yield from records(data, chunk.first, self._dialect.delimiter)
            return
        for number, raw in enumerate(lines_of(data), chunk.first):
            line = raw.rstrip(b"\r")
            if line:
                yield number, self._fast(line) or line.decode("utf-8", "surrogateescape").split(",")

    def _fast(self, line: bytes) -> tuple[list[bytes], dict[str, str]] | None:
        """The record by way of the JSON parser, which reads numbers four times as fast as `float`."""
        if self._block is None:
            return None
        first, end = self._block
        left = line.split(b",", first)
        if len(left) <= first:
            return None
        after = self._width - end
        right = left[first].rsplit(b",", after) if after else [left[first]]
        try:
            values = orjson.loads(b"[" + right[0] + b"]")
            if len(values) != end - first or len(right) != after + 1 or set(map(type, values)) - {int, float}:
                return None
            packed = [self._packers[0].pack(_nested(values, self._shapes[0]), may_hold_booleans=False)]
            outside = left[:first] + [b""] * (end - first) + right[1:]
            return packed, {name: outside[place].decode() for name, place in self._extras}
        except (orjson.JSONDecodeError, TensorError, UnicodeDecodeError):
            return None

    def _decode_cells(self, cells: list[str]) -> tuple[list[bytes], dict[str, str]]:
        if len(cells) != self._width:
            detail = f": {cells[0]}" if len(cells) == 1 and cells[0].startswith("not CSV") else ""
            raise TensorError(f"{len(cells)} columns, the header has {self._width}{detail}")
        if not is_utf8(cells):
            raise TensorError("the line is not UTF-8")
        packed = []
        for places, packer, shape in zip(self._places, self._packers, self._shapes, strict=True):
            values = [_number(cells[place], place, self._dialect.decimal) for place in places]
            packed.append(packer.pack(_nested(values, shape)))
        return packed, {name: cells[place] for name, place in self._extras}


def _places(names: Sequence[str], inputs: Sequence[TensorSpec], passthrough: Sequence[str] | None) -> list[list[int]]:
    """Per input, the columns that its values are in.

    Raises:
        SchemaError: there are not such columns; the message says which names are looked for.
    """
    where = {name: place for place, name in enumerate(names)}
    if len(where) < len(names):
        raise SchemaError("the CSV header names a column twice")
    found = []
    for spec in inputs:
        count = int(np.prod(row_shape(spec)))
        wanted = [spec.name] if count == 1 else [f"{spec.name}_{index}" for index in range(count)]
        if all(name in where for name in wanted):
            found.append([where[name] for name in wanted])
    if len(found) == len(inputs):
        return found
    count = int(np.prod(row_shape(inputs[0])))
    rest = [place for place, name in enumerate(names) if name not in (passthrough or ())]
    if len(inputs) == 1 and len(rest) == count:
        return [rest]
    wanted_names = "; ".join(
        spec.name
        if np.prod(row_shape(spec)) == 1
        else f"{spec.name}_0 … {spec.name}_{int(np.prod(row_shape(spec))) - 1}"
        for spec in inputs
    )
    raise SchemaError(
        f"the CSV header has {len(names)} columns, but not those of the inputs ({wanted_names})"
        + (f", nor {count} besides those that pass through ({len(rest)})" if len(inputs) == 1 else "")
    )


def _number(cell: str, place: int, decimal: str) -> Any:
    text = cell.strip()
    if decimal == ",":
        text = text.replace(".", "?").replace(",", ".")  # a point would be a thousands separator
    if text in ("true", "True", "TRUE", "false", "False", "FALSE"):
        return text[0] in "tT"
    try:
        # An underscore between digits is Python's own way of writing a number.
        value = int(text) if text.lstrip("+-").isdecimal() else float(text.replace("_", "?"))
    except ValueError:
        raise TensorError(f"column {place + 1} holds {_shown(text)}, expected a number") from None
    if value in (inf, -inf) and "e" in text.lower():
        raise TensorError(f"column {place + 1} holds {_shown(text)}, which is outside the range of any type")
    return value


def _shown(text: str) -> str:
    return repr(text if len(text) <= 20 else text[:20] + "…")


def _nested(values: list[Any], shape: tuple[int, ...]) -> Any:
    """A flat row in the shape that the packer checks."""
    if not shape:
        return values[0]
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]
    return values
