"""JSON Lines for models that prepare fields by name: lines are as `instances` of a request; the others pass through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import orjson

from litelambda_serving.errors import TensorError
from litelambda_serving.scoring.formats.json_tokens import Tokens
from litelambda_serving.scoring.formats.records import Records
from litelambda_serving.scoring.formats.text import BYTE_ORDER_MARK, line_spans

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.scoring.formats.base import Chunk, DecodedRows
    from litelambda_serving.scoring.formats.coded_rows import CodedRows

__all__ = ["JsonlFieldsDecoder"]


class JsonlFieldsDecoder:
    """See `base.Decoder`."""

    id_name = "line"
    passthrough: tuple[str, ...] | None = None

    def __init__(self, raw_inputs: RawInputs, passthrough: Sequence[str] | None) -> None:
        self._rows_for: RawInputs | CodedRows = raw_inputs
        self._raw_inputs = raw_inputs
        self._wanted = None if passthrough is None else frozenset(passthrough)
        self._tokens = Tokens(next(iter(raw_inputs.fields)))

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        data: bytes = chunk.payload
        if chunk.first == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        rows = Records(self._rows_for)
        for number, (start, stop) in enumerate(line_spans(data), chunk.first):
            line = data[start:stop]
            if not line or line.isspace():
                continue
            try:
                rows.add(number, *self._record_of(line))
            except orjson.JSONDecodeError as error:
                rows.add_bad(number, f"not JSON: {error}")
            except TensorError as error:
                rows.add_bad(number, str(error))
        return rows.prepared()

    def _record_of(self, line: bytes) -> tuple[dict[str, Any], dict[str, Any]]:
        """The value of each field, and what passes through."""
        value = orjson.loads(line)
        fields = self._raw_inputs.fields
        if type(value) is not dict or (len(value) == 1 and "b64" in value):
            return {name: column[0] for name, column in self._raw_inputs.columns_of([value]).items()}, {}
        if missing := [name for name in fields if name not in value]:
            raise TensorError(f"missing {', '.join(map(repr, missing[:5]))}: expected {', '.join(list(fields)[:20])}")
        extra = {
            name: value[name] for name in value if name not in fields and (self._wanted is None or name in self._wanted)
        }
        return {name: value[name] for name in fields}, self._tokens.as_they_came(line, extra) if extra else extra
