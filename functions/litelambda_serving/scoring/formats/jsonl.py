"""JSON Lines: one instance a line, in TensorFlow Serving's forms.

    [0.1, 0.2, …]                            the only input's value
    {"image": [0.1, 0.2, …], "id": "a"}      every input by name; other fields pass through to the output

Out: {"line": 1, "id": "a", "prediction": [0.9, 0.1], "label": "cat"}, with "prediction" an object where the model has
several outputs. Numbers are written with the digits that tell a float32 from its neighbors.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np
import orjson

from litelambda_serving.errors import TensorError
from litelambda_serving.scoring.columns import column_of, row_shape
from litelambda_serving.scoring.formats.base import BadRow, DecodedRows, Reader, RowId, RowSchema, Writer, passed_names
from litelambda_serving.scoring.formats.coded_decoders import CodedJsonlDecoder
from litelambda_serving.scoring.formats.json_numbers import JsonNumbers
from litelambda_serving.scoring.formats.json_tokens import Tokens, dump_fields
from litelambda_serving.scoring.formats.jsonl_fields import JsonlFieldsDecoder
from litelambda_serving.scoring.formats.text import BYTE_ORDER_MARK, LineSource, line_spans
from litelambda_serving.scoring.formats.values import RowPacker
from litelambda_serving.servable.vocabularies import names_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.formats.base import Array, Chunk, Decoder
    from litelambda_serving.scoring.job import Job

    Texts = bytes | list[bytes]

__all__ = ["JsonlDecoder", "JsonlReader", "JsonlWriter", "labels_of", "name_texts", "row_texts"]

_SPACE = 0x20
_NOTHING: dict[str, Any] = {}
_LONG_LINE_BYTES = 1500  # of an object, below which making Python objects is faster than asking for each member
_TOGETHER_BYTES = 64 * 1024  # of text that is parsed at once: it stays in a core's cache


class JsonlReader(Reader):
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, schema: RowSchema) -> None:
        self._source = LineSource(job, info)
        self.total_bytes = self._source.total_bytes
        fields = schema.records
        self.decoder: Decoder
        if schema.coded_rows is not None:
            self.decoder = CodedJsonlDecoder(schema.coded_rows, job.passthrough)
        elif fields is not None:
            self.decoder = JsonlFieldsDecoder(fields, job.passthrough)
        else:
            self.decoder = JsonlDecoder(schema, job.passthrough)

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """See `Reader.chunks`."""
        return self._source.chunks(position)


class JsonlDecoder:
    """See `base.Decoder`."""

    id_name = "line"
    passthrough: tuple[str, ...] | None = None

    def __init__(self, schema: RowSchema, passthrough: Sequence[str] | None) -> None:
        self._packers = {spec.name: RowPacker(spec) for spec in schema.inputs}
        self._wanted = None if passthrough is None else frozenset(passthrough)
        self._tokens = Tokens(schema.inputs[0].name)
        alone = schema.inputs[0] if len(schema.inputs) == 1 else None
        self._numbers = JsonNumbers(alone) if alone is not None and JsonNumbers.can_read(alone) else None

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        rows = None
        if self._numbers is not None and (chunk.payload.startswith(b"[") or _are_long_lines(chunk.payload)):
            rows = self._decode(chunk, self._numbers)
        return rows or cast("DecodedRows", self._decode(chunk, None))

    def _decode(self, chunk: Chunk, numbers: JsonNumbers | None) -> DecodedRows | None:
        """The chunk's rows, most of them read by `numbers` if given; None where the model's type cannot hold those."""
        data: bytes = chunk.payload
        if chunk.first == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        found = _DecodedLines(len(self._packers))
        spans = list(line_spans(data))
        step = max(_TOGETHER_BYTES * len(spans) // (len(data) + 1), 1)
        for index in range(0, len(spans), step):
            some, first = spans[index : index + step], chunk.first + index
            values = None
            if numbers is not None and data.startswith(b"[", some[0][0]):
                values = numbers.read_lines(data, some)
            if values is None:
                self._decode_lines(data, some, first, numbers, found)
            else:
                found.add_rows(range(first, first + len(some)), values)
        columns = []
        for pieces in found.columns:
            joined = b"".join(pieces)
            column = joined if numbers is None else numbers.narrow(joined)
            if column is None:
                return None
            columns.append(column_of(column))
        extras = found.extras if any(found.extras) else None
        return DecodedRows([(len(found.ids), columns)], found.ids, extras, found.bad)

    def _decode_lines(
        self, data: bytes, spans: list[tuple[int, int]], first: int, numbers: JsonNumbers | None, found: _DecodedLines
    ) -> None:
        """Decode lines one by one; see `_decode`."""
        begin, end = spans[0][0], spans[-1][1]
        booleans = data.find(b"true", begin, end) >= 0 or data.find(b"false", begin, end) >= 0
        for number, (start, stop) in enumerate(spans, first):
            line = data[start:stop]
            if not line or (line[0] <= _SPACE and line.isspace()):
                continue
            try:
                values, extra = self._decode_line(line, numbers, may_hold_booleans=booleans)
            except orjson.JSONDecodeError as error:
                found.add_bad(number, f"not JSON: {error}")
            except TensorError as error:
                found.add_bad(number, str(error))
            else:
                found.add(number, values, extra)

    def _decode_line(
        self, line: bytes, numbers: JsonNumbers | None, *, may_hold_booleans: bool
    ) -> tuple[Sequence[Buffer], dict[str, Any]]:
        """The bytes of each input, in the type that `numbers` reads if given, and what passes through.

        Raises:
            JSONDecodeError: the line is not JSON.
            TensorError: it is not what the model takes.
        """
        values: Sequence[Buffer]
        read = numbers.read(line) if numbers is not None else None
        if read is not None:
            values, extra = [read[0]], read[1]
        else:
            packed, extra = self._pack_line(line, may_hold_booleans=may_hold_booleans)
            values = packed if numbers is None else [numbers.widen(each) for each in packed]
        if extra and self._wanted is not None:
            extra = {name: extra[name] for name in extra if name in self._wanted}
        return values, self._tokens.as_they_came(line, extra) if extra else extra

    def _pack_line(self, line: bytes, *, may_hold_booleans: bool) -> tuple[list[bytes], dict[str, Any]]:
        value = orjson.loads(line)
        packers = self._packers
        if may_hold_booleans:
            may_hold_booleans = b"true" in line or b"false" in line
        if type(value) is not dict:
            if len(packers) > 1:
                raise TensorError(
                    f"the model has several inputs: every line must be an object with {', '.join(packers)}"
                )
            return [packer.pack(value, may_hold_booleans=may_hold_booleans) for packer in packers.values()], {}
        missing = packers.keys() - value.keys()
        if missing:
            raise TensorError(f"missing input {', '.join(sorted(missing))}: expected {', '.join(packers)}")
        packed = [packer.pack(value.pop(name), may_hold_booleans=may_hold_booleans) for name, packer in packers.items()]
        return packed, value


def _are_long_lines(data: bytes) -> bool:
    end = data.find(b"\n")
    return (len(data) if end < 0 else end) >= _LONG_LINE_BYTES


class _DecodedLines:
    """What a chunk's lines hold, as far as they were decoded.

    Attributes:
        columns: the bytes of the good rows, one row's or several rows' at a time, for each input.
        ids: numbers of the good rows' lines.
        extras: of the good rows, what passes through.
        bad: the others.
    """

    def __init__(self, num_inputs: int) -> None:
        self.columns: list[list[Buffer]] = [[] for _input in range(num_inputs)]
        self.ids: list[int] = []
        self.extras: list[dict[str, Any]] = []
        self.bad: list[BadRow] = []

    def add(self, number: int, values: Sequence[Buffer], extra: dict[str, Any]) -> None:
        """A good row: its line's number, its bytes for each input, and what passes through."""
        for column, value in zip(self.columns, values, strict=True):
            column.append(value)
        self.ids.append(number)
        self.extras.append(extra)

    def add_rows(self, numbers: range, values: Buffer) -> None:
        """Good rows of the only input, with which nothing passes through."""
        self.columns[0].append(values)
        self.ids.extend(numbers)
        self.extras.extend([_NOTHING] * len(numbers))

    def add_bad(self, number: int, reason: str) -> None:
        """A bad row: its line's number, and what is wrong with it."""
        self.bad.append(BadRow(number, reason, len(self.ids) + len(self.bad)))


class JsonlWriter(Writer):
    """See `base.Writer`."""

    def __init__(self, schema: RowSchema) -> None:
        self._names = [spec.name for spec in schema.outputs]
        self._ranks = [len(row_shape(spec)) for spec in schema.outputs]
        self._vocabularies = [schema.vocabularies.get(spec.name) for spec in schema.outputs]
        self._labels = [orjson.dumps(label) for label in schema.labels] if schema.labels else []
        self._label_output = schema.label_output
        self._taken = {"prediction"} if schema.label_output is None else {"prediction", "label"}

    def encode(self, rows: DecodedRows, outputs: Sequence[Array], id_name: str) -> bytes:
        """See `Writer.encode`."""
        if not len(rows.ids):
            return b""
        count = len(rows.ids)
        columns: list[Texts] = [b'{"%b":' % id_name.encode(), texts_of(rows.ids)]
        if rows.extras:
            taken = {id_name, *self._taken} | ({"explanation"} if rows.explanations is not None else set())
            columns.append([b"," + _passed(extra, taken)[1:-1] if extra else b"" for extra in rows.extras])
        columns.append(b',"prediction":')
        each = zip(self._names, outputs, self._ranks, self._vocabularies, strict=True)
        for number, (name, array, rank, vocabulary) in enumerate(each):
            if len(self._names) > 1:
                columns.append((b"," if number else b"{") + orjson.dumps(name) + b":")
            columns.append(row_texts(array, rank) if vocabulary is None else name_texts(array, vocabulary))
        if len(self._names) > 1:
            columns.append(b"}")
        if self._label_output is not None:
            columns += [b',"label":', labels_of(outputs[self._label_output], self._labels)]
        if rows.explanations is not None:
            columns += [b',"explanation":', [orjson.dumps(each) for each in rows.explanations]]
        columns.append(b"}\n")
        return _joined(columns, count)


def _passed(extra: dict[str, Any], taken: set[str]) -> bytes:
    """What passes through, as JSON."""
    if not taken.isdisjoint(extra):
        names = passed_names(extra, taken)
        extra = {names[name]: value for name, value in extra.items()}
    return dump_fields(extra)


def _joined(columns: Sequence[Texts], count: int) -> bytes:
    """The rows of a table, one after the other: each column has a text for each row, or one for all."""
    texts: list[bytes] = [b""] * (count * len(columns))
    for index, column in enumerate(columns):
        texts[index :: len(columns)] = [column] * count if isinstance(column, bytes) else column
    return b"".join(texts)


def texts_of(ids: Sequence[RowId]) -> list[bytes]:
    """Each row's address as JSON."""
    if isinstance(ids[0], str):
        return [orjson.dumps(each) for each in ids]
    return orjson.dumps(list(ids))[1:-1].split(b",")


def labels_of(scores: Array, labels: Sequence[bytes]) -> list[bytes]:
    """The label of the largest score of each row."""
    return [labels[index] for index in scores.argmax(axis=1).tolist()]


def name_texts(array: Array, names: list[str]) -> list[bytes]:
    """Each row of an array of numbers, (rows, names) or (rows,), as JSON of the names that they stand for."""
    if array.ndim == 1:
        return [orjson.dumps(name) for name in names_of(array.tolist(), names)]
    return [orjson.dumps(names_of(row, names)) for row in array.reshape(len(array), -1).tolist()]


def row_texts(array: Array, rank: int) -> list[bytes]:
    """Each row of an array as JSON."""
    array = np.ascontiguousarray(array)
    if array.dtype == np.float16:
        array = array.astype(np.float32)
    text = orjson.dumps(array, option=orjson.OPT_SERIALIZE_NUMPY)
    if rank == 0:
        return text[1:-1].split(b",")
    # "]],[[" parts rows of rank 2, and can be nowhere else: inside a row there are fewer brackets in a row.
    opening, closing = b"[" * rank, b"]" * rank
    parts = text[1 + rank : -1 - rank].split(closing + b"," + opening)
    return [opening + part + closing for part in parts]
