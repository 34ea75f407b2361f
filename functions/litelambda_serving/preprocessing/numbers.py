"""Numbers that are only scaled: value = raw * scale + offset, by one pair or by one for each of the last dimension.

The steps are those of training, in float32: the raw value, the product and the sum are each rounded to it.
"""

from __future__ import annotations

import struct
from _operator import add, mul  # without the Python module around it, which INIT would pay for
from itertools import cycle, repeat

from litelambda_serving.errors import ManifestError, TensorError
from litelambda_serving.json_codec import UnreadNumbers
from litelambda_serving.preprocessing.base import Field, Preprocessor
from litelambda_serving.tensor import DTYPES, Tensor, TensorSpec, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Any

__all__ = ["Numbers", "scaled", "to_dtype"]

_LARGEST = 3.4e38  # of float32


class Numbers(Preprocessor):
    """Prepares an input of scaled numbers.

    Attributes:
        scaling: `scale` and `offset` as the manifest has them.
        scale, offset: of all values, or of each in the last dimension.
    """

    raw_spec: TensorSpec

    def __init__(self, spec: TensorSpec, document: Mapping[str, Any]) -> None:
        """Read the scaling.

        Raises:
            ManifestError: it is not finite numbers, or not as many as the input's last dimension has.
        """
        super().__init__(spec)
        self.scaling = document
        self.scale, self.offset = (_numbers(document, key, spec) for key in ("scale", "offset"))
        shape = spec.shape[1:] if spec.batched else spec.shape
        self.fields = (Field(spec.name, "tensor", shape),)
        self.raw_spec = TensorSpec(spec.name, DTYPES["float32"], spec.shape, finite=spec.finite)

    def prepare(self, columns: Sequence[Sequence[Any]]) -> Tensor:
        """See `Preprocessor.prepare`."""
        values = columns[0]
        shape = self.spec.shape_of(len(values))
        if isinstance(values, UnreadNumbers):
            data: Any = values.read("float32", shape)
            if data is not None and values.scale(data, self.scale, self.offset):
                return Tensor(self.spec.dtype, shape, to_dtype(data, self.spec))
            values = values.to_list()
        raw = pack(list(values), self.raw_spec, shape)
        return self.prepare_array(memoryview(raw.data).cast("f"), shape)

    def prepare_array(self, values: Sequence[float], shape: Sequence[int]) -> Tensor:
        """See `Preprocessor.prepare_array`."""
        try:
            data = to_dtype(scaled(values, self.scale, self.offset), self.spec)
        except OverflowError as error:
            raise TensorError(
                f"input {self.spec.name!r}: a value is outside the range of float32 when scaled"
            ) from error
        return Tensor(self.spec.dtype, shape, data)


def scaled(raw: Sequence[float], scale: Sequence[float], offset: Sequence[float]) -> bytes:
    """Raw values as training scaled them: float32, row-major little-endian.

    The product of two float32 numbers, and the sum, are exact enough in Python's float that rounding them once more is
    float32's own rounding.

    >>> struct.unpack("<2f", scaled([1.0, 2.0], [0.5], [1.0]))
    (1.5, 2.0)
    """
    into = struct.Struct(f"<{len(raw)}f")
    if not isinstance(raw, memoryview):
        raw = memoryview(into.pack(*raw)).cast("f")
    products = into.pack(*map(mul, raw, _repeated(scale)))
    if not any(offset):
        return products
    return into.pack(*map(add, memoryview(products).cast("f"), _repeated(offset)))


def to_dtype(data: bytes, spec: TensorSpec) -> bytes:
    """Float32 values in an input's dtype; of a quantized one the codes, those beyond its range at its ends."""
    dtype, scheme = spec.dtype, spec.quantization
    if dtype is DTYPES["float32"]:
        return data
    values: Iterable[Any] = memoryview(data).cast("f")
    if dtype.kind == "int":
        if scheme is not None:
            values = [round(value / scheme.scale) + scheme.zero_point for value in values]
        count = 1 << 8 * dtype.itemsize
        low = 0 if dtype.name.startswith("u") else -count // 2
        values = [min(max(round(value), low), low + count - 1) for value in values]
    return struct.pack(f"<{len(data) // 4}{dtype.format}", *values)


def _repeated(numbers: Sequence[float]) -> Iterable[float]:
    return repeat(numbers[0]) if len(numbers) == 1 else cycle(numbers)


def _numbers(document: Mapping[str, Any], key: str, spec: TensorSpec) -> tuple[float, ...]:
    """One number, or one for each of the input's last dimension, rounded to float32."""
    value = document.get(key, {"scale": 1.0, "offset": 0.0}[key])
    numbers = value if type(value) is list else [value]
    if not numbers or not all(type(each) in (int, float) and abs(each) <= _LARGEST for each in numbers):
        raise ManifestError(f"{key}: expected finite numbers, got {str(value)[:40]}")
    if type(value) is list and spec.shape[-1:] != (len(numbers),):
        raise ManifestError(f"{key} has {len(numbers)} numbers, the input has the shape {list(spec.shape)}")
    return struct.unpack(f"<{len(numbers)}f", struct.pack(f"<{len(numbers)}f", *numbers))
