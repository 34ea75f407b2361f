"""What is explained: one row, cut into features, and the model that can be run with only some of them.

A coalition says which features are present: a byte for each, 1 or 0. What is absent is as in the baseline; an absent
word is left out of its text.
"""

from __future__ import annotations

from math import inf
from time import monotonic

from litelambda_serving.errors import PayloadTooLargeError, UnsupportedError
from litelambda_serving.explain.baselines import Baselines
from litelambda_serving.explain.parts import CellPart, ColumnPart, TokenPart, WordPart
from litelambda_serving.explain.target import Target
from litelambda_serving.tensor import DYNAMIC, Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any

    from litelambda_serving.explain.options import Options
    from litelambda_serving.explain.parts import Part
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import TensorSpec

__all__ = ["Rows", "Subject"]

_MOST_ROWS, _MOST_BYTES = 256, 1 << 22  # of the rows that are made at once


class Rows:
    """What a request wants explained.

    Attributes:
        servable: the model.
        key: one of its signatures.
        signature: that.
        tensors: the rows as the model reads them, by input.
        columns: the rows' raw values by field; None where the caller sent the model's own values.
        raw_inputs: what prepared them; None where nothing did.
        deadline: `time.monotonic()` after which nothing is run any more.
    """

    def __init__(
        self,
        servable: Servable | Shadowed,
        key: str,
        tensors: Mapping[str, Tensor],
        columns: Mapping[str, Sequence[Any]] | None = None,
        deadline: float = inf,
    ) -> None:
        self.servable = servable
        self.key = key
        self.signature = servable.manifest.signatures[key]
        self.tensors = tensors
        self.columns = columns
        self.raw_inputs = servable.raw_inputs if columns is not None else None
        self.deadline = deadline


class Subject:
    """One row, and the model.

    Attributes:
        rows: among which it is.
        inputs: what the model reads of the row, by input: bytes, or a list of strings.
        baseline_inputs: the same of the baseline; of a text that of an empty one.
        baseline_name: how the baseline is called.
        parts: of the row, each with features of its own.
        size: number of features.
        target: what is explained.
        runs: how often the model was run on a row so far.
    """

    def __init__(self, rows: Rows, row: int, options: Options, cells: int | None) -> None:
        """Cut a row, and run the model on it.

        Args:
            rows: of a request.
            row: which of them.
            options: what the caller wants.
            cells: into how many cells at most pictures and tensors are cut; None for the finest features.

        Raises:
            RequestError: the options do not fit the model; or it takes rows only in fixed numbers.
        """
        signature = rows.signature
        if signature.rows > 1:
            raise UnsupportedError(
                f"this model takes exactly {signature.rows} rows at once: its rows cannot be explained one by one"
            )
        self.rows = rows
        self._row = row
        self.inputs = {spec.name: _row_of(rows.tensors[spec.name], spec, row) for spec in signature.inputs}
        self.runs = 0
        self.target = Target(rows.servable, signature, self._run([self.inputs]), options)
        self.baseline_inputs: dict[str, Any] = {}
        baselines = Baselines(rows.servable, rows.key, options, is_raw=rows.columns is not None)
        self.parts = self._cut_into_parts(baselines, cells)
        self.baseline_name = ", ".join(dict.fromkeys(baselines.used))
        self.size = sum(part.size for part in self.parts)

    def output(self) -> float:
        """The model's output for the row itself."""
        return self.target.first

    def outputs(self, coalitions: Sequence[bytes]) -> list[float]:
        """The model's output with only some of the features present, for each coalition.

        Raises:
            PayloadTooLargeError: the deadline has passed.
            LiteRtError: the runtime failed.
        """
        row_bytes = sum(spec.row_bytes or 64 * spec.row_values for spec in self.rows.signature.inputs)
        step = max(1, min(_MOST_ROWS, _MOST_BYTES // (row_bytes or 1))) if self.rows.signature.rows == DYNAMIC else 1
        values: list[float] = []
        for start in range(0, len(coalitions), step):
            if monotonic() > self.rows.deadline:
                raise PayloadTooLargeError(
                    f"the explanation of row {self._row} takes longer than a request may: it was stopped after "
                    f"{self.runs} runs of the model. Lower max_runs, or send fewer rows at a time"
                )
            values += self.target.values(self._run(self._rendered(coalitions[start : start + step])))
        return values

    def cut(self, values: Sequence[float]) -> Iterator[tuple[Part, Sequence[float]]]:
        """Each part with its features' values."""
        start = 0
        for part in self.parts:
            yield part, values[start : start + part.size]
            start += part.size

    def fold(self, elements: Mapping[str, Sequence[float]]) -> list[float]:
        """The value of each feature as the sum of its elements'.

        Args:
            elements: by input, a value for each element of the row.
        """
        return [value for part in self.parts for value in part.fold(elements)]

    def _rendered(self, coalitions: Sequence[bytes]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [dict(self.inputs) for _ in coalitions]
        start = 0
        for part in self.parts:
            cuts = [coalition[start : start + part.size] for coalition in coalitions]
            for name, made in part.render(cuts).items():
                for row, data in zip(rows, made, strict=True):
                    row[name] = data
            start += part.size
        return rows

    def _run(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """The outputs of rows that are made of the inputs' bytes."""
        tensors = {}
        for spec in self.rows.signature.inputs:
            data = [row[spec.name] for row in rows]
            joined: Any = b"".join(data) if spec.dtype.itemsize else [each for row in data for each in row]
            tensors[spec.name] = Tensor(spec.dtype, spec.shape_of(len(rows)), joined)
        self.runs += len(rows)
        return self.rows.servable.run(self.rows.key, tensors)

    def _cut_into_parts(self, baselines: Baselines, cells: int | None) -> list[Part]:
        parts: list[Part] = []
        texts: dict[str, dict[str, Any]] = {}
        for spec in self.rows.signature.inputs:
            preprocessor = self.rows.raw_inputs.preprocessors[spec.name] if self.rows.raw_inputs else None
            field = preprocessor.fields[0] if preprocessor else None
            if preprocessor and field and field.type == "text":
                texts.setdefault(field.name, {})[spec.name] = preprocessor
                self.baseline_inputs[spec.name] = preprocessor.prepare([[""]]).data
                continue
            row = self.inputs[spec.name]
            baseline = self.baseline_inputs[spec.name] = baselines.of(spec, preprocessor, row)
            if field and field.type in ("number", "category"):
                parts.append(ColumnPart(spec, row, baseline, preprocessor))
                continue
            name, is_picture = (field.name, field.type == "image") if field else (spec.name, False)
            parts.append(CellPart(name, spec, row, baseline, cells, by_pixel=is_picture))
        for name, preprocessors in texts.items():
            text = _text_of((self.rows.columns or {})[name][self._row])
            parts.append((TokenPart if cells is None else WordPart)(name, text, preprocessors))
            baselines.used.append("empty")
        return parts


def _row_of(tensor: Tensor, spec: TensorSpec, row: int) -> Any:
    """The bytes or the strings of one row."""
    step = spec.row_bytes or spec.row_values
    view = tensor.data if type(tensor.data) is list else memoryview(tensor.data).cast("B")
    found = view[row * step : (row + 1) * step] if spec.batched else view
    return found if type(found) is list else bytes(found)


def _text_of(value: Any) -> str:
    """Text out of what a caller sends: text, its bytes in UTF-8, or base64 of these. It has been prepared once."""
    if type(value) is str:
        return value
    if type(value) is dict:
        from binascii import a2b_base64

        value = a2b_base64(value["b64"])
    return str(value, "utf-8")
