"""CSV as an output: a column for what addresses a row, those that pass through, and one for each value of an output."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.scoring.columns import row_shape
from litelambda_serving.scoring.formats.base import RowSchema, Writer, passed_names
from litelambda_serving.scoring.formats.json_tokens import dump_fields
from litelambda_serving.scoring.formats.jsonl import labels_of, row_texts
from litelambda_serving.servable.vocabularies import names_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.scoring.formats.base import Array, DecodedRows, Decoder

__all__ = ["CsvWriter"]


class CsvWriter(Writer):
    """See `base.Writer`."""

    def __init__(self, schema: RowSchema, explain: int | None = None) -> None:
        self._explain = explain
        self._outputs = schema.outputs
        self._vocabularies = [schema.vocabularies.get(spec.name) for spec in schema.outputs]
        self._label_output = schema.label_output
        self._labels = [_cells([label]) for label in schema.labels] if schema.labels else []
        self._extras: tuple[str, ...] = ()
        self._in_one_cell = False

    def begin(self, decoder: Decoder) -> bytes:
        """See `Writer.begin`."""
        # Formats whose rows may each have other fields write them as one JSON object.
        named = decoder.passthrough
        self._in_one_cell = named is None
        self._extras = ("passthrough",) if named is None else named
        names = []
        for spec in self._outputs:
            count = int(np.prod(row_shape(spec)))
            names += [spec.name] if count == 1 else [f"{spec.name}_{index}" for index in range(count)]
        if self._label_output is not None:
            names.append("label")
        for number in range(1, (self._explain or 0) + 1):
            names += [f"explanation_{number}", f"attribution_{number}"]
        passed = passed_names(self._extras, {decoder.id_name, *names})
        return _cells([decoder.id_name, *passed.values(), *names]) + b"\n"

    def encode(self, rows: DecodedRows, outputs: Sequence[Array], id_name: str) -> bytes:
        """See `Writer.encode`."""
        if not len(rows.ids):
            return b""
        columns = [[_cells([each]) for each in rows.ids] if id_name == "file" else [b"%a" % each for each in rows.ids]]
        if self._extras:
            columns.append([self._extra_cells(extra) for extra in rows.extras or [{}] * len(rows.ids)])
        for array, names in zip(outputs, self._vocabularies, strict=True):
            flat = array.reshape(len(array), -1)
            columns.append(
                [text.strip(b"[]") for text in row_texts(flat, 1)]
                if names is None
                else [_cells(names_of(row, names)) for row in flat.tolist()]
            )
        if self._label_output is not None:
            columns.append(labels_of(outputs[self._label_output], self._labels))
        if rows.explanations is not None:
            columns.append([_explanation_cells(each, self._explain or 0) for each in rows.explanations])
        return b"".join([b",".join(row) + b"\n" for row in zip(*columns, strict=True)])

    def _extra_cells(self, extra: dict[str, Any]) -> bytes:
        if self._in_one_cell:
            return _cells([dump_fields(extra).decode() if extra else ""])
        return _cells([extra[name] for name in self._extras])


def _explanation_cells(entries: Sequence[dict[str, Any]], count: int) -> bytes:
    """A name and a number for each of `count` attributions; empty where a row has fewer features."""
    cells: list[Any] = []
    for entry in entries:
        index = "".join(f"[{place}]" for place in entry.get("index", ()))
        cells += [entry["name"] + index, entry["attribution"]]
    return _cells(cells + [""] * (2 * count - len(cells)))


def _cells(values: Sequence[Any]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerow(values)  # what it ends lines with is what it quotes
    return text.getvalue()[:-1].encode()
