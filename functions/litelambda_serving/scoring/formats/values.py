"""From values to the bytes that a model reads: JSON numbers by `struct`, arrays by numpy."""

from __future__ import annotations

import struct
from itertools import chain
from math import isfinite, prod
from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda_serving.scoring.columns import row_shape
from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.tensor import DYNAMIC, TensorSpec, pack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litelambda_serving.scoring.formats.base import Array

__all__ = [
    "NOT_FINITE",
    "NotFiniteError",
    "RowPacker",
    "bytes_of",
    "check_row_shape",
    "first_non_finite",
    "is_surely_finite",
    "to_model",
    "unusable_rows",
]

NOT_FINITE = "holds NaN or an infinity, which a quantized model cannot represent"
"""Why a row of an array is bad."""


class NotFiniteError(Exception):
    """Rows that went to the model as they were hold NaN or an infinity: they must be looked at one by one."""


class RowPacker:
    """Packs the JSON value of one input of one row; `tensor.pack` says what is wrong with it."""

    def __init__(self, spec: TensorSpec) -> None:
        self._shape = row_shape(spec)
        count = 1
        for size in self._shape:
            count *= size
        self._flat = len(self._shape) == 1
        self._spec = TensorSpec(spec.name, spec.dtype, (DYNAMIC, *self._shape), spec.quantization, finite=spec.finite)
        self._struct = struct.Struct(f"<{count}{spec.dtype.format}")
        self._plain = spec.dtype.kind in {"int", "float"}

    def __reduce__(self) -> tuple[type[RowPacker], tuple[TensorSpec]]:
        return RowPacker, (self._spec,)

    def pack(self, value: Any, *, may_hold_booleans: bool = True) -> bytes:
        """The row's bytes.

        Args:
            value: nested lists, as JSON gives them.
            may_hold_booleans: false where the row's text has neither `true` nor `false`, which saves looking at each
                value: to `struct`, they are numbers.

        Raises:
            TensorError: wrong shape, or values that the dtype cannot hold.
        """
        if self._plain and not may_hold_booleans:
            try:
                if self._flat and type(value) is list:
                    return self._struct.pack(*value)
                return self._struct.pack(*self._flattened(value))
            except (struct.error, TypeError, OverflowError):
                pass  # said better below
        return bytes(pack([value], self._spec, (1, *self._shape)).data)

    def _flattened(self, value: Any) -> list[Any]:
        level = [value]
        for size in self._shape:
            if any(type(node) is not list or len(node) != size for node in level):
                raise TypeError
            level = list(chain.from_iterable(level))
        return level


def check_row_shape(name: str, shape: tuple[int, ...], spec: TensorSpec) -> None:
    """Whether an array's rows fit an input; the same number of values in another shape does.

    Raises:
        SchemaError: they do not.
    """
    wanted = row_shape(spec)
    if prod(shape) != prod(wanted):
        raise SchemaError(
            f"the rows of {name} have shape {list(shape)}, input {spec.name!r} takes {list(wanted)}: "
            f"{prod(shape)} values instead of {prod(wanted)}"
        )


def to_model(array: Array, spec: TensorSpec, scaling: dict[str, Any] | None) -> Array:
    """Rows of any dtype as the model reads them; for values that it cannot take, see `unusable_rows`.

    Integers that stand for a float input are raw values: the manifest's scaling makes them the model's. Floats
    are the model's values already; a quantized input gets their codes.

    Raises:
        SchemaError: the dtype cannot stand for the input's.
    """
    dtype = np.dtype(spec.dtype.name)
    if array.dtype == dtype:
        return array
    kind = array.dtype.kind
    array = array.reshape(len(array), *row_shape(spec))
    if dtype.kind == "f" and kind in "iufb":
        if kind in "iu" and scaling:
            scaled = array.astype(np.float32)
            scaled *= np.asarray(scaling["scale"], np.float32)
            scaled += np.asarray(scaling.get("offset", 0.0), np.float32)
            return scaled.astype(dtype, copy=False)
        return array.astype(dtype)
    if kind == "f" and spec.quantization is not None and dtype.kind in "iu":
        codes = np.rint(array / spec.quantization.scale) + spec.quantization.zero_point
        limits = np.iinfo(dtype)
        clipped: Array = codes.clip(limits.min, limits.max).astype(dtype)
        return clipped
    if kind in "iu" and dtype.kind in "iu" and (spec.quantization is None or np.can_cast(array.dtype, dtype)):
        return array.astype(dtype)
    raise SchemaError(f"values of dtype {array.dtype} cannot stand for input {spec.name!r} of dtype {spec.dtype.name}")


def unusable_rows(array: Array, made: Array, spec: TensorSpec) -> Iterator[tuple[Array, str]]:
    """Which rows the model cannot take, and why.

    Args:
        array: as they came.
        made: as `to_model` gave them.
        spec: what they are for.

    Yields:
        A mask over the rows, and a reason; a row may be in several.
    """
    kind, wanted = array.dtype.kind, made.dtype
    beyond = f"a value is outside the range of {spec.dtype.name}"
    if kind == "f":
        bad = first_non_finite(array) if spec.finite or spec.dtype.kind == "int" else None
        if bad is not None:
            yield bad, NOT_FINITE
        if wanted.kind == "f" and wanted.itemsize < array.dtype.itemsize and not is_surely_finite(made.reshape(-1)):
            yield _rows_with(np.isinf(made) & np.isfinite(array.reshape(made.shape))), beyond
    elif kind == "b":
        yield _rows_with(array.view(np.uint8) > 1), "a byte of a bool is neither 0 nor 1"
    elif wanted.kind in "iu" and not np.can_cast(array.dtype, wanted):
        came = array.reshape(made.shape)
        yield _rows_with((made.astype(array.dtype) != came) | ((made < 0) != (came < 0))), beyond


def _rows_with(found: Array) -> Array:
    rows: Array = np.asarray(found.reshape(len(found), -1).any(axis=1))
    return rows


def is_surely_finite(values: Array) -> bool:
    """Whether all of a vector is finite, by one fast pass over float32; if false, some of it may not be."""
    if values.dtype.char != "f":
        return False
    # NaN and infinities outlast every sum. The products of finite values of any sane size stay finite, in float32; in
    # float16 they overflow at 256. One half times the other reads each value once, where a square would twice.
    half = (len(values) + 1) // 2
    return isfinite(values[:half].dot(values[len(values) - half :]))


def first_non_finite(array: Array) -> Array | None:
    """Which rows of a float array hold NaN or an infinity; None, after one fast pass, when none does."""
    if is_surely_finite(array.reshape(-1)):
        return None
    bad: Array = np.asarray(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))
    return bad if bad.any() else None


def bytes_of(array: Array) -> memoryview:
    """An array's bytes, row-major; uncopied where they lie so already."""
    if not array.size:
        return memoryview(b"")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
