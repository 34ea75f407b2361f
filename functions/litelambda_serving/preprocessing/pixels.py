"""Pixels: bytes that stand for 0 to 255 become an input's values, each by a table of 256, without a step in Python."""

from __future__ import annotations

import struct

from litelambda_serving.preprocessing.numbers import Numbers, scaled, to_dtype

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litelambda_serving.tensor import TensorSpec

__all__ = ["PixelTables", "pixel_values"]


class PixelTables:
    """What each pixel becomes.

    Attributes:
        values: for each channel, or once for all of them, the 256 values in the input's dtype.
    """

    def __init__(self, values: list[bytes], itemsize: int) -> None:
        self.values = values
        self._itemsize = itemsize
        self._tables = [[data[place::itemsize] for place in range(itemsize)] for data in values]

    @classmethod
    def of(cls, spec: TensorSpec, scaling: Mapping[str, Any] | None) -> PixelTables:
        """From the `scale` and `offset` of a manifest; see `pixel_values`."""
        return cls(pixel_values(spec, scaling), spec.dtype.itemsize)

    def apply(self, pixels: bytes | bytearray) -> bytes | bytearray:
        """The values of pixels whose channels are last."""
        size, channels = self._itemsize, len(self._tables)
        if size == channels == 1:
            return pixels.translate(self._tables[0][0])
        values = bytearray(len(pixels) * size)
        for channel, tables in enumerate(self._tables):
            plane = pixels[channel::channels] if channels > 1 else pixels
            for place, table in enumerate(tables):
                values[channel * size + place :: channels * size] = plane.translate(table)
        return values


def pixel_values(spec: TensorSpec, scaling: Mapping[str, Any] | None) -> list[bytes]:
    """The model's value of each of the 256 that a pixel can have, in the input's dtype; for each channel its own.

    Where `scaling` has no lists they are the same for all channels. Without any, they are the pixels themselves, int8
    ones around -128.

    Raises:
        ManifestError: `scaling` does not hold numbers.
    """
    if scaling is None:
        first = -128 if spec.dtype.name == "int8" else 0
        return [struct.pack(f"<256{spec.dtype.format}", *range(first, first + 256))]
    numbers = Numbers(spec, scaling)
    channels = max(len(numbers.scale), len(numbers.offset))
    scales, offsets = (each * channels if len(each) == 1 else each for each in (numbers.scale, numbers.offset))
    each_channel = zip(scales, offsets, strict=True)
    return [to_dtype(scaled(range(256), (scale,), (offset,)), spec) for scale, offset in each_channel]
