"""Data sets of raw values by field, such as tables and texts: what a row of them becomes is fitted, then prepared.

The preprocessors are those of serving, so that a model is trained on what it will be asked with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.data.stored_rows import Indices, StoredRows
from litelambda_serving.errors import TensorError
from litelambda_serving.preprocessing import open_preprocessor
from litelambda_serving.preprocessing.base import FieldError, Preprocessor
from litelambda_serving.tensor import DTYPES, DYNAMIC, TensorSpec

_ROWS_AT_ONCE = 4096  # preprocessors prepare no more than a request may have

Columns = Mapping[str, Sequence[Any]]
"""By field, the raw value of each row, as JSON would have it; None for a missing one."""


class RawSource(Protocol):
    """The raw values of a data set."""

    def __len__(self) -> int: ...

    def read(self, numbers: Indices) -> Columns:
        """The raw values of some rows, by their numbers in the data set."""

    def fit(self, numbers: Indices) -> RawForm:
        """What rows become, from what these rows, the training rows, hold.

        Raises:
            DataError: the recipe does not fit the data.
        """

    def place(self, number: int) -> str:
        """Where a row is, for messages: "data.csv, line 7"."""


@dataclass(frozen=True)
class RawForm:
    """What the raw values of a row become.

    Attributes:
        document: the manifest's `preprocessing` of the only input.
        row_shape: of what the model reads.
        dtype: of its values.
        assets: contents of the files that `document` names.
    """

    document: Mapping[str, Any]
    row_shape: tuple[int, ...]
    dtype: str = "float32"
    assets: Mapping[str, bytes] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The manifest's `preprocessing` of one input."""
        return dict(self.document)

    @cached_property
    def preprocessor(self) -> Preprocessor:
        """What prepares rows, as a server opens it."""
        spec = TensorSpec("input", DTYPES[self.dtype], (DYNAMIC, *self.row_shape))
        return open_preprocessor(spec, self.document, self.assets)

    def prepare(self, columns: Columns) -> NDArray[Any]:
        """The rows that the model reads.

        Raises:
            TensorError: a value is not what its field takes.
        """
        return prepared_rows(self.preprocessor, columns)


def prepared_rows(preprocessor: Preprocessor, columns: Columns) -> NDArray[Any]:
    """The rows of an input as an array, from columns by field.

    Raises:
        TensorError: a value is not what its field takes.
    """
    tensor = preprocessor.prepare([columns[each.name] for each in preprocessor.fields])
    return np.frombuffer(tensor.data, tensor.dtype.name).reshape(tensor.shape)


def row_numbers(source: RawSource) -> StoredRows:
    """The numbers of a source's rows, which stand for the rows until they are prepared."""
    return StoredRows.of(np.arange(len(source)))


def prepared(numbers: StoredRows, source: RawSource, form: RawForm) -> StoredRows:
    """The rows that the model reads, prepared when they are indexed.

    Args:
        numbers: see `row_numbers`; some of them, in any order.
        source: has their raw values.
        form: what they become.
    """

    def read(wanted: Indices) -> NDArray[Any]:
        parts = [part(wanted[start : start + _ROWS_AT_ONCE]) for start in range(0, len(wanted), _ROWS_AT_ONCE)]
        return np.concatenate(parts) if parts else np.empty((0, *form.row_shape), form.dtype)

    def part(wanted: Indices) -> NDArray[Any]:
        chosen = numbers[wanted]
        try:
            return form.prepare(source.read(chosen))
        except FieldError as error:
            raise DataError(f"{source.place(int(chosen[error.row]))}: {error.reason}") from error
        except TensorError as error:
            raise DataError(f"{source.place(int(chosen[0]))} or a row after it: {error}") from error

    return StoredRows((len(numbers), *form.row_shape), form.dtype, read)
