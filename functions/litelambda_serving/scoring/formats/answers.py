"""JSON Lines of what the function's own `postprocess` answers, in place of the model's outputs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.custom_code import CustomCode, values_of
from litelambda_serving.errors import RequestError
from litelambda_serving.json_codec import dumps, nest_texts, number_texts
from litelambda_serving.scoring.formats.base import Writer
from litelambda_serving.scoring.formats.json_tokens import dump_fields
from litelambda_serving.scoring.formats.jsonl import name_texts, texts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.scoring.formats.base import Array, DecodedRows, RowSchema
    from litelambda_serving.tensor import TensorSpec

__all__ = ["AnswerWriter"]


class AnswerWriter(Writer):
    """See `base.Writer`; rows that the code refuses become bad ones."""

    def __init__(self, schema: RowSchema, code: CustomCode) -> None:
        self._outputs = schema.outputs
        self._code = code
        self._vocabularies = schema.vocabularies

    def encode(self, rows: DecodedRows, outputs: Sequence[Array], id_name: str) -> bytes:
        """See `Writer.encode`."""
        if not len(rows.ids):
            return b""
        answers = self._answers(rows, outputs)
        if not len(rows.ids):
            return b""
        extras = rows.extras or [{}] * len(rows.ids)
        said = [b',"explanation":' + dumps(each).encode() for each in rows.explanations or ()] or [b""] * len(rows.ids)
        return b"".join(
            b'{"%b":%b%b,"prediction":%b%b}\n'
            % (
                id_name.encode(),
                address,
                b"," + dump_fields(extra)[1:-1] if extra else b"",
                dumps(answer).encode(),
                why,
            )
            for address, extra, answer, why in zip(texts_of(rows.ids), extras, answers, said, strict=True)
        )

    def _answers(self, rows: DecodedRows, outputs: Sequence[Array]) -> list[Any]:
        """An answer for each row that has one."""
        columns = {
            spec.name: values_of(self._texts(spec, array)) for spec, array in zip(self._outputs, outputs, strict=True)
        }
        try:
            return self._code.answers(columns, len(rows.ids))
        except RequestError:
            return self._answer_each(rows, columns)

    def _texts(self, spec: TensorSpec, array: Array) -> list[str]:
        """The JSON of each row of an output, as a plain answer has it."""
        if spec.name in self._vocabularies:
            return [text.decode() for text in name_texts(array, self._vocabularies[spec.name])]
        return nest_texts(number_texts(np.ascontiguousarray(array).tobytes(), spec.dtype.format), array.shape)

    def _answer_each(self, rows: DecodedRows, columns: dict[str, list[Any]]) -> list[Any]:
        """The rows one by one: a bad one does not spoil the others."""
        answers, refused = [], {}
        for place in range(len(rows.ids)):
            try:
                answers += self._code.answers({name: [column[place]] for name, column in columns.items()}, 1)
            except RequestError as error:
                refused[place] = str(error)
        rows.refuse(refused)
        return answers
