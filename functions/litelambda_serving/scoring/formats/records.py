"""Rows of fields by name, prepared for the model as requests are; what text formats make of a chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from litelambda_serving.errors import RequestError
from litelambda_serving.preprocessing.base import FieldError
from litelambda_serving.scoring.columns import column_of
from litelambda_serving.scoring.formats.base import BadRow, DecodedRows, RowId

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Protocol

    from litelambda_serving.tensor import Tensor

    class _Fields(Protocol):
        """What prepares records: `RawInputs`, or the function's own code and then those."""

        @property
        def fields(self) -> Mapping[str, Any]: ...

        def prepare(self, columns: Mapping[str, list[Any]]) -> dict[str, Tensor]: ...


__all__ = ["Records"]


class Records:
    """The records of a chunk, as far as they were read."""

    def __init__(self, raw_inputs: _Fields) -> None:
        self._raw_inputs = raw_inputs
        self._columns: dict[str, list[Any]] = {name: [] for name in raw_inputs.fields}
        self._places: list[int] = []
        self._ids: list[RowId] = []
        self._extras: list[dict[str, Any]] = []
        self._bad: list[BadRow] = []

    def add(self, number: RowId, values: dict[str, Any], extra: dict[str, Any]) -> None:
        """A record: its address, its value for each field, and what passes through."""
        for name, column in self._columns.items():
            column.append(values[name])
        self._places.append(len(self._ids) + len(self._bad))
        self._ids.append(number)
        self._extras.append(extra)

    def add_bad(self, number: RowId, reason: str) -> None:
        """A record that cannot be read: its address, and what is wrong with it."""
        self._bad.append(BadRow(number, reason, len(self._ids) + len(self._bad)))

    def prepared(self) -> DecodedRows:
        """The rows; those whose values a field does not take are bad ones."""
        try:
            pieces = [self._prepare(self._columns)] if self._ids else []
        except RequestError:
            pieces = self._prepare_each()
        columns = [column_of(b"".join(parts)) for parts in zip(*pieces, strict=True)]
        extras = self._extras if any(self._extras) else None
        pieces_of_all = [(len(self._ids), columns)] if self._ids else []
        return DecodedRows(pieces_of_all, self._ids, extras, self._bad, self._columns)

    def _prepare(self, columns: dict[str, list[Any]]) -> list[bytes]:
        return [bytes(tensor.data) for tensor in self._raw_inputs.prepare(columns).values()]

    def _prepare_each(self) -> list[list[bytes]]:
        """The rows one by one: a bad one does not spoil the others."""
        pieces, good = [], []
        for index, number in enumerate(self._ids):
            try:
                pieces.append(self._prepare({name: [column[index]] for name, column in self._columns.items()}))
            except RequestError as error:
                reason = error.reason if isinstance(error, FieldError) else str(error)
                self._bad.append(BadRow(number, reason, self._places[index]))
            else:
                good.append(index)
        self._bad.sort(key=lambda row: row.index)
        self._ids = [self._ids[index] for index in good]
        self._extras = [self._extras[index] for index in good]
        self._columns = {name: [column[index] for index in good] for name, column in self._columns.items()}
        return pieces
