"""Runs rows through a model; where it refuses some of them, those alone have no prediction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.errors import LiteRtError
from litelambda_serving.litert import CompiledModel
from litelambda_serving.scoring.columns import column_of, row_bytes
from litelambda_serving.scoring.running.batching import BatchRunner
from litelambda_serving.servable import Binding, warm_up_inputs
from litelambda_serving.servable.refusals import refusal, refused_inputs

if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.scoring.columns import Column
    from litelambda_serving.tensor import TensorSpec

__all__ = ["RowRunner"]


class RowRunner:
    """A model, its inputs and outputs in the manifest's order.

    Args:
        artifact: the flatbuffer.
        manifest: its manifest.
        key: which signature.

    Raises:
        ArtifactError: the flatbuffer has other tensors than the manifest.
        LiteRtError: the runtime refuses the flatbuffer.
    """

    def __init__(self, artifact: bytes, manifest: Manifest, key: str) -> None:
        self._model, self._key = CompiledModel(artifact), key
        one_by_one = manifest.batch_sizes == (1,)
        self._binding = Binding(manifest.signatures[key], self._model.signatures[key], one_by_one=one_by_one)
        self._spare = warm_up_inputs(manifest, key, self._binding.inputs)
        self._widths = [row_bytes(spec) for spec in self._binding.inputs]
        self._batches = BatchRunner(self._model, key, manifest.batch_sizes, self._spare)

    @property
    def best(self) -> int:
        """See `BatchRunner.best`."""
        return self._batches.best

    def run(self, columns: Sequence[Column], count: int) -> tuple[list[bytearray], dict[int, str]]:
        """Run `count` rows.

        Args:
            columns: the rows of each input.
            count: how many rows.

        Returns:
            Per output, the bytes of the rows that have a prediction, one after the other; and by the place of each row
            that has none, why.

        Raises:
            LiteRtError: the runtime failed, and would have whatever the values.
        """
        columns = [columns[place] for place in self._binding.input_places]
        refused = self._beyond_limits(columns, count) if self._binding.limited else {}
        if refused:
            columns = self._without(columns, count, refused)
        try:
            outputs = self._batches.run(columns, count - len(refused))
        except LiteRtError as error:
            if not error.in_operator:
                raise
            places = [place for place in range(count) if place not in refused]
            outputs, failed = self._run_each(columns, len(places))
            refused |= {places[row]: reason for row, reason in failed.items()}
        return [outputs[place] for place in self._binding.output_places], refused

    def _run_each(self, columns: Sequence[Column], count: int) -> tuple[list[bytearray], dict[int, str]]:
        """Run rows one by one; see `run`."""
        outputs = [bytearray() for _ in self._binding.outputs]
        failed = {}
        for row in range(count):
            values = [_read(column, row * width, width) for column, width in zip(columns, self._widths, strict=True)]
            try:
                answers = self._model.run(self._key, values)
            except LiteRtError:
                names = refused_inputs(self._model, self._key, self._binding.inputs, values, self._spare)
                if not names:
                    raise
                failed[row] = refusal(names)
                continue
            for output, answer in zip(outputs, answers, strict=True):
                output.extend(answer)
        return outputs, failed

    def _beyond_limits(self, columns: list[Column], count: int) -> dict[int, str]:
        """The rows that hold values which the graph cannot look up, and why."""
        refused: dict[int, str] = {}
        for index, spec in enumerate(self._binding.inputs):
            if spec.limits is None:
                continue
            data = _read(columns[index], 0, count * self._widths[index])
            columns[index] = column_of(data)
            refused = _first_beyond(data, spec, count) | refused
        return refused

    def _without(self, columns: Sequence[Column], count: int, refused: dict[int, str]) -> list[Column]:
        good = np.ones(count, bool)
        good[list(refused)] = False
        rows = (
            np.frombuffer(_read(column, 0, count * width), np.uint8).reshape(count, width)
            for column, width in zip(columns, self._widths, strict=True)
        )
        return [column_of(each[good].ravel().data) for each in rows]


def _read(column: Column, offset: int, size: int) -> bytearray:
    data = bytearray(size)
    column(memoryview(data), offset)
    return data


def _first_beyond(data: bytearray, spec: TensorSpec, count: int) -> dict[int, str]:
    """By row, the first value that is beyond an input's limits."""
    low, high = spec.limits or (0, 0)
    values: Any = np.frombuffer(data, np.dtype(spec.dtype.name).newbyteorder("<")).reshape(count, -1)
    beyond = ~((values >= low) & (values <= high))  # NaN is neither
    rows = np.flatnonzero(beyond.any(axis=1)).tolist()
    return {
        row: f"input {spec.name!r}: {values[row][beyond[row]][0]} is outside the range [{low}, {high}]" for row in rows
    }
