"""JSON Lines and CSV for a function with code of its own: whole records go to its `preprocess`.

The code alone knows which members are values for the model, so what passes through is what the job names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from litelambda_serving.preprocessing.cells import parse_cell
from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.scoring.formats.coded_rows import ROW
from litelambda_serving.scoring.formats.csv_records import is_utf8, records
from litelambda_serving.scoring.formats.json_tokens import Tokens
from litelambda_serving.scoring.formats.jsonl_fields import JsonlFieldsDecoder
from litelambda_serving.scoring.formats.records import Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.preprocessing.cells import Dialect
    from litelambda_serving.scoring.formats.base import Chunk, DecodedRows
    from litelambda_serving.scoring.formats.coded_rows import CodedRows

__all__ = ["CodedCsvDecoder", "CodedJsonlDecoder"]


class CodedJsonlDecoder(JsonlFieldsDecoder):
    """See `base.Decoder`. A row is a line's value."""

    def __init__(self, coded_rows: CodedRows, passthrough: Sequence[str] | None) -> None:
        self._rows_for = coded_rows
        self._passing = tuple(passthrough or ())
        self._tokens = Tokens("\0")  # no member's name: which ones are inputs is not known

    def _record_of(self, line: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        value = orjson.loads(line)
        extra = {name: value[name] for name in self._passing if name in value} if type(value) is dict else {}
        return {ROW: value}, self._tokens.as_they_came(line, extra) if extra else extra


class CodedCsvDecoder:
    """See `base.Decoder`. A row is an object of cells: text, or what JSON would have for a field of the model."""

    id_name = "line"

    def __init__(
        self, names: Sequence[str], coded_rows: CodedRows, passthrough: Sequence[str] | None, dialect: Dialect
    ) -> None:
        """Take the header.

        Raises:
            SchemaError: it names a column twice.
        """
        if len(set(names)) < len(names):
            raise SchemaError("the CSV header names a column twice")
        self._names = list(names)
        self._dialect = dialect
        self._coded_rows = coded_rows
        self.passthrough: tuple[str, ...] | None = tuple(name for name in names if name in (passthrough or ()))

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        rows = Records(self._coded_rows)
        for number, cells in records(chunk.payload, chunk.first, self._dialect.delimiter):
            try:
                values = self._values(cells)
            except ValueError as error:
                rows.add_bad(number, str(error))
            else:
                texts = dict(zip(self._names, cells, strict=True))
                rows.add(number, {ROW: values}, {name: texts[name] for name in self.passthrough or ()})
        return rows.prepared()

    def _values(self, cells: list[str]) -> dict[str, Any]:
        if len(cells) != len(self._names):
            raise ValueError(f"{len(cells)} columns, the header has {len(self._names)}")
        if not is_utf8(cells):
            raise ValueError("the line is not UTF-8")
        fields = self._coded_rows.model_fields
        return {
            name: parse_cell(cell, fields[name], self._dialect.decimal) if name in fields else cell
            for name, cell in zip(self._names, cells, strict=True)
        }
