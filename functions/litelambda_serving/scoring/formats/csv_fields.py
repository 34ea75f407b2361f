"""CSV for models that prepare fields by name: a column for each field, in any order; the others pass through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litelambda_serving.preprocessing.cells import parse_cell
from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.scoring.formats.csv_records import is_utf8, records
from litelambda_serving.scoring.formats.records import Records

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.preprocessing.cells import Dialect
    from litelambda_serving.scoring.formats.base import Chunk, DecodedRows

__all__ = ["CsvFieldsDecoder"]


class CsvFieldsDecoder:
    """See `base.Decoder`."""

    id_name = "line"

    def __init__(
        self, names: Sequence[str], raw_inputs: RawInputs, passthrough: Sequence[str] | None, dialect: Dialect
    ) -> None:
        """Find the fields among the columns.

        Raises:
            SchemaError: a field has no column; the message names it.
        """
        where = {name.strip(): place for place, name in enumerate(names)}
        if len(where) < len(names):
            raise SchemaError("the CSV header names a column twice")
        fields = raw_inputs.fields.values()
        if missing := [field.name for field in fields if field.name not in where]:
            raise SchemaError(
                f"the CSV header has no column {', '.join(map(repr, missing[:10]))}; it has {', '.join(names)[:200]} "
                f"({dialect.describe()})"
            )
        self._width = len(names)
        self._dialect = dialect
        self._raw_inputs = raw_inputs
        self._fields = [(field, where[field.name]) for field in fields]
        self._extras = [
            (name, place)
            for name, place in where.items()
            if name not in raw_inputs.fields and (passthrough is None or name in passthrough)
        ]
        self.passthrough: tuple[str, ...] | None = tuple(name for name, _ in self._extras)

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        rows = Records(self._raw_inputs)
        for number, cells in records(chunk.payload, chunk.first, self._dialect.delimiter, strict=True):
            try:
                values = self._values(cells)
            except ValueError as error:
                rows.add_bad(number, str(error))
            else:
                rows.add(number, values, {name: cells[place] for name, place in self._extras})
        return rows.prepared()

    def _values(self, cells: list[str]) -> dict[str, Any]:
        if len(cells) != self._width:
            detail = f": {cells[0]}" if len(cells) == 1 and cells[0].startswith("not CSV") else ""
            raise ValueError(f"{len(cells)} columns, the header has {self._width}{detail}")
        if not is_utf8(cells):
            raise ValueError("the line is not UTF-8")
        found = {}
        for field, place in self._fields:
            try:
                found[field.name] = parse_cell(cells[place], field, self._dialect.decimal)
            except ValueError as error:
                raise ValueError(f"field {field.name!r}: {error}") from error
        return found
