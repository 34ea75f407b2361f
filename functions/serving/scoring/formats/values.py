"""From values to the bytes that a model reads: JSON numbers by `struct`, arrays by numpy."""

from __future__ import annotations

import struct
from itertools import chain
from math import isfinite
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.scoring.batching import row_shape
from serving.scoring.errors import SchemaError
from serving.tensor import DYNAMIC, TensorSpec, pack

if TYPE_CHECKING:
    from serving.scoring.formats.base import Array

__all__ = [
    "NotFiniteError",
    "RowPacker",
    "bytes_of",
    "check_row_shape",
    "first_non_finite",
    "is_surely_finite",
    "to_model",
]


class NotFiniteError(Exception):
    """Rows that went to the model as they were hold NaN or an infinity: they must be looked at one by one."""


class RowPacker:
    """Packs the JSON value of one input of one row; what is wrong with it is told in the words of `tensor.pack`."""

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
    if int(np.prod(shape)) != int(np.prod(wanted)):
        raise SchemaError(
            f"the rows of {name} have shape {list(shape)}, input {spec.name!r} takes {list(wanted)}: "
            f"{int(np.prod(shape))} values instead of {int(np.prod(wanted))}"
        )


def to_model(array: Array, spec: TensorSpec, preprocessing: dict[str, float] | None) -> Array:
    """Rows of any dtype as the model reads them.

    Integers that stand for a float input are raw values: the manifest's preprocessing makes them the model's. Floats
    are the model's values already; a quantized input gets their codes.

    Raises:
        SchemaError: the dtype cannot stand for the input's.
    """
    dtype = np.dtype(spec.dtype.name)
    if array.dtype == dtype:
        return array
    kind = array.dtype.kind
    if dtype.kind == "f" and kind in "iufb":
        if kind in "iu" and preprocessing:
            scaled = array.astype(np.float32)
            scaled *= np.float32(preprocessing["scale"])
            if preprocessing.get("offset"):
                scaled += np.float32(preprocessing["offset"])
            return scaled.astype(dtype, copy=False)
        return array.astype(dtype)
    if kind == "f" and spec.quantization is not None and dtype.kind in "iu":
        codes = np.rint(array / spec.quantization.scale) + spec.quantization.zero_point
        limits = np.iinfo(dtype)
        clipped: Array = np.nan_to_num(codes).clip(limits.min, limits.max).astype(dtype)
        return clipped
    if kind in "iu" and dtype.kind in "iu" and np.can_cast(array.dtype, dtype):
        return array.astype(dtype)
    raise SchemaError(f"values of dtype {array.dtype} cannot stand for input {spec.name!r} of dtype {spec.dtype.name}")


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
