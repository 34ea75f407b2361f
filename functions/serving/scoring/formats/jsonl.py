"""JSON Lines: one instance a line, in TensorFlow Serving's forms.

    [0.1, 0.2, …]                            the only input's value
    {"image": [0.1, 0.2, …], "id": "a"}      every input by name; what is no input passes through to the output

Out: {"line": 1, "id": "a", "prediction": [0.9, 0.1], "label": "cat"}, with "prediction" an object where the model has
several outputs. Numbers are written with the digits that tell a float32 from its neighbours.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import orjson

from serving.errors import TensorError
from serving.scoring.batching import BytesColumn, row_shape
from serving.scoring.formats.base import BadRow, Model, Rows
from serving.scoring.formats.text import BYTE_ORDER_MARK, LineSource, line_spans
from serving.scoring.formats.values import RowPacker

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from serving.scoring.formats.base import Array, Chunk, Decoder
    from serving.scoring.job import Job
    from serving.scoring.storage import ObjectInfo

__all__ = ["JsonlDecoder", "JsonlReader", "JsonlWriter", "labels_of", "row_texts"]

_SPACE = 0x20


class JsonlReader:
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, model: Model) -> None:
        self._source = LineSource(job, info)
        self.total_bytes = self._source.total_bytes
        self.decoder: Decoder = JsonlDecoder(model, job.passthrough)

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """See `Reader.chunks`."""
        return self._source.chunks(position)

    def close(self) -> None:
        """See `Reader.close`."""


class JsonlDecoder:
    """See `base.Decoder`."""

    id_name = "line"
    passthrough: tuple[str, ...] | None = None

    def __init__(self, model: Model, passthrough: Sequence[str] | None) -> None:
        self._packers = {spec.name: RowPacker(spec) for spec in model.inputs}
        self._wanted = None if passthrough is None else frozenset(passthrough)

    def decode(self, chunk: Chunk) -> Rows:
        """See `Decoder.decode`."""
        columns: dict[str, list[bytes]] = {name: [] for name in self._packers}
        ids, extras, bad = [], [], []
        data: bytes = chunk.payload
        if chunk.first == 1:
            data = data.removeprefix(BYTE_ORDER_MARK)
        # One character is found ten times as fast as four: most chunks hold neither word.
        booleans = (b"u" in data and b"true" in data) or (b"l" in data and b"false" in data)
        view = memoryview(data)  # lines are parsed where they lie
        index = 0
        for number, (start, stop) in enumerate(line_spans(data), chunk.first):
            if start == stop or (data[start] <= _SPACE and data[start:stop].isspace()):
                continue
            try:
                may_hold = booleans and (data.find(b"true", start, stop) >= 0 or data.find(b"false", start, stop) >= 0)
                values, extra = self._decode_line(view[start:stop], may_hold_booleans=may_hold)
            except (TensorError, orjson.JSONDecodeError) as error:
                reason = f"not JSON: {error}" if isinstance(error, orjson.JSONDecodeError) else str(error)
                bad.append(BadRow(number, reason, index))
            else:
                for name, value in values.items():
                    columns[name].append(value)
                ids.append(number)
                extras.append(extra)
            index += 1
        inputs = [BytesColumn(b"".join(column)) for column in columns.values()]
        return Rows([(len(ids), inputs)], ids, extras if any(extras) else None, bad)

    def _decode_line(self, line: memoryview, *, may_hold_booleans: bool) -> tuple[dict[str, bytes], dict[str, Any]]:
        value = orjson.loads(line)
        packers = self._packers
        if type(value) is not dict:
            if len(packers) > 1:
                raise TensorError(
                    f"the model has several inputs: every line must be an object with {', '.join(packers)}"
                )
            return {
                name: packer.pack(value, may_hold_booleans=may_hold_booleans) for name, packer in packers.items()
            }, {}
        missing = packers.keys() - value.keys()
        if missing:
            raise TensorError(f"missing input {', '.join(sorted(missing))}: expected {', '.join(packers)}")
        packed = {
            name: packer.pack(value.pop(name), may_hold_booleans=may_hold_booleans) for name, packer in packers.items()
        }
        if value and self._wanted is not None:
            value = {name: value[name] for name in value if name in self._wanted}
        return packed, value


class JsonlWriter:
    """See `base.Writer`."""

    ending = ".jsonl"
    holds_head = False

    def __init__(self, model: Model) -> None:
        self._names = [spec.name for spec in model.outputs]
        self._ranks = [len(row_shape(spec)) for spec in model.outputs]
        self._labels = [orjson.dumps(label) for label in model.labels] if model.labels else []
        self._label_output = model.label_output

    def begin(self, decoder: Decoder) -> bytes:  # noqa: ARG002 - JSON Lines have no head
        """See `Writer.begin`."""
        return b""

    def head(self, num_rows: int) -> bytes | None:  # noqa: ARG002 - see begin
        """See `Writer.head`."""
        return None

    def encode(self, rows: Rows, outputs: Sequence[Array], id_name: str) -> bytes:
        """See `Writer.encode`."""
        if not len(rows.ids):
            return b""
        texts = [row_texts(array, rank) for array, rank in zip(outputs, self._ranks, strict=True)]
        if len(texts) == 1:
            predictions = texts[0]
        else:
            names = [orjson.dumps(name) for name in self._names]
            template = b"{" + b",".join(name.replace(b"%", b"%%") + b":%b" for name in names) + b"}"
            predictions = [template % row for row in zip(*texts, strict=True)]
        start = b'{"%b":' % id_name.encode()
        ids = [orjson.dumps(each) for each in rows.ids] if id_name == "file" else [b"%a" % each for each in rows.ids]
        if rows.extras:
            ids = [
                each + (b"," + orjson.dumps(extra)[1:-1] if extra else b"")
                for each, extra in zip(ids, rows.extras, strict=True)
            ]
        if self._label_output is None:
            return b"".join([b'%b%b,"prediction":%b}\n' % (start, *row) for row in zip(ids, predictions, strict=True)])
        labels = labels_of(outputs[self._label_output], self._labels)
        return b"".join(
            [
                b'%b%b,"prediction":%b,"label":%b}\n' % (start, *row)
                for row in zip(ids, predictions, labels, strict=True)
            ]
        )


def labels_of(scores: Array, labels: Sequence[bytes]) -> list[bytes]:
    """The label of the largest score of each row."""
    return [labels[index] for index in scores.argmax(axis=1).tolist()]


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
