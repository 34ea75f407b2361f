"""Arrays for tables of numbers: a row has the columns in the manifest's order, NaN for a missing value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from litelambda_serving.errors import TensorError
from litelambda_serving.preprocessing.base import FieldError
from litelambda_serving.scoring.columns import column_of
from litelambda_serving.scoring.formats.base import DecodedRows, Decoder

if TYPE_CHECKING:
    from litelambda_serving.preprocessing.base import Preprocessor
    from litelambda_serving.scoring.formats.base import Array, Chunk

__all__ = ["ArrayFieldsDecoder"]


class ArrayFieldsDecoder:
    """Prepares the rows that another decoder reads as raw float64; see `base.Decoder`."""

    def __init__(self, decoder: Decoder, preprocessor: Preprocessor) -> None:
        self.id_name = decoder.id_name
        self.passthrough = decoder.passthrough
        self._decoder = decoder
        self._preprocessor = preprocessor

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        rows = self._decoder.decode(chunk)
        width = len(self._preprocessor.fields)
        found = [np.empty((0, width), np.float64)]
        for count, (column,) in rows.pieces:
            values = np.empty((count, width), np.float64)
            column(values.reshape(-1).view(np.uint8).data, 0)
            found.append(values)
        raw = np.concatenate(found)
        prepared: list[bytes] = []
        refused: dict[int, str] = {}
        if len(raw):
            try:
                prepared.append(self._prepared(raw))
            except TensorError:
                prepared, refused = self._prepared_each(raw)
        rows.refuse(refused)
        rows.pieces = [(len(rows.ids), [column_of(b"".join(prepared))])] if len(rows.ids) else []
        return rows

    def _prepared(self, raw: Array) -> bytes:
        return bytes(self._preprocessor.prepare_array(raw.reshape(-1).tolist(), self._shape(len(raw))).data)

    def _prepared_each(self, raw: Array) -> tuple[list[bytes], dict[int, str]]:
        """The rows one by one, and what is wrong with some of them."""
        prepared, refused = [], {}
        for place in range(len(raw)):
            try:
                prepared.append(self._prepared(raw[place : place + 1]))
            except TensorError as error:
                refused[place] = error.reason if isinstance(error, FieldError) else str(error)
        return prepared, refused

    def _shape(self, rows: int) -> tuple[int, ...]:
        spec = self._preprocessor.raw_spec
        return spec.shape_of(rows) if spec is not None else (rows, len(self._preprocessor.fields))
