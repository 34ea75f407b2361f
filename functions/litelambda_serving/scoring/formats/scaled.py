"""Numbers that are only scaled, and raw pixels: decoded as such by any format's decoder, scaled on their way."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from litelambda_serving.preprocessing.image import Image
from litelambda_serving.preprocessing.numbers import Numbers
from litelambda_serving.scoring.formats.base import DecodedRows, Decoder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from litelambda_serving.preprocessing.base import Preprocessor
    from litelambda_serving.scoring.columns import Column
    from litelambda_serving.scoring.formats.base import Chunk
    from litelambda_serving.tensor import TensorSpec

__all__ = ["ScaledDecoder"]


class ScaledDecoder:
    """Scales what another decoder reads; see `base.Decoder`."""

    def __init__(self, decoder: Decoder, inputs: Sequence[TensorSpec], preprocessors: Sequence[Preprocessor]) -> None:
        self.id_name = decoder.id_name
        self.passthrough = decoder.passthrough
        self._decoder = decoder
        self._inputs = list(zip(inputs, preprocessors, strict=True))

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        rows = self._decoder.decode(chunk)
        rows.pieces = self._scaled(rows.pieces)
        return rows

    def _scaled(self, pieces: Iterable[tuple[int, Sequence[Column]]]) -> Iterator[tuple[int, Sequence[Column]]]:
        for count, columns in pieces:
            yield (
                count,
                [_column(column, *prepared) for column, prepared in zip(columns, self._inputs, strict=True)],
            )


def _column(column: Column, spec: TensorSpec, preprocessor: Preprocessor) -> Column:
    if isinstance(preprocessor, Numbers):
        return _scaled_column(column, spec, preprocessor)
    return _pixel_column(column, spec, preprocessor) if isinstance(preprocessor, Image) else column


def _pixel_column(column: Column, spec: TensorSpec, image: Image) -> Column:
    """A column of raw pixels, which become the model's values when they are read."""

    def fill(target: memoryview, start: int) -> None:
        pixels = bytearray(len(target) // spec.dtype.itemsize)
        column(memoryview(pixels), start // spec.dtype.itemsize)
        target[:] = image.tables.apply(pixels)

    return fill


def _scaled_column(column: Column, spec: TensorSpec, numbers: Numbers) -> Column:
    """A column of raw float32 values, scaled when they are read; each step is rounded to float32, as in training."""
    dtype, scheme = np.dtype(spec.dtype.name), spec.quantization
    scale, offset = (np.array(each, np.float32) for each in (numbers.scale, numbers.offset))

    def fill(target: memoryview, start: int) -> None:
        values = np.empty((len(target) // dtype.itemsize // len(scale), len(scale)), np.float32)
        column(values.reshape(-1).view(np.uint8).data, start // dtype.itemsize * values.itemsize)
        values *= scale
        values += offset
        if dtype.kind != "f":
            codes = values.astype(np.float64)
            if scheme is not None:
                codes = np.rint(codes / scheme.scale) + scheme.zero_point
            limits = np.iinfo(dtype)
            values = np.rint(codes).clip(limits.min, limits.max)
        target[:] = values.astype(dtype, copy=False).reshape(-1).view(np.uint8).data

    return fill
