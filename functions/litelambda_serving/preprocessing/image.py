"""Pictures: a file, or raw pixels of the model's size, become an input: value = pixel * scale + offset.

The manifest's document:

    {"kind": "image", "field": "image", "shape": [224, 224, 3], "resize": "bilinear", "fit": "crop",
     "background": [255, 255, 255], "scale": 0.00392, "offset": 0.0}

`shape` is the height, width and channels of the pixels, and that of the input where it is not given; the input may
have the same number of values in another shape. `scale` and `offset` are one number, or one for each channel, in
float32 steps as in `numbers`. `resize`, `fit` and `background` are the rules of `pictures.PictureDecoder`.

A file is `{"b64": "…"}` in JSON, its bytes elsewhere. Raw pixels are whole numbers from 0 to 255.
"""

from __future__ import annotations

from binascii import a2b_base64
from math import prod

from litelambda_serving.errors import (
    MalformedRequestError,
    ManifestError,
    PayloadTooLargeError,
    TensorError,
)
from litelambda_serving.preprocessing.base import Field, FieldError, Preprocessor, shown
from litelambda_serving.preprocessing.pictures import FITS, MODES, RESAMPLING, PictureDecoder, load_decoder
from litelambda_serving.preprocessing.pixels import PixelTables
from litelambda_serving.tensor import DTYPES, Tensor, TensorSpec, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

__all__ = ["Image"]

_NOT_PIXELS = "pixels are whole numbers from 0 to 255; say that these are the model's own values (prepared) if they are"


class Image(Preprocessor):
    """Prepares an input of pixels.

    Attributes:
        decoder: of files.
        tables: what pixels become.
    """

    raw_spec: TensorSpec

    def __init__(self, spec: TensorSpec, document: Mapping[str, Any]) -> None:
        """Read the rules, and load what decodes pictures: no request pays for it.

        Raises:
            ManifestError: they are not known ones, or the shape is not that of the input.
        """
        super().__init__(spec)
        row_shape = spec.shape[1:] if spec.batched or spec.shape[:1] == (1,) else spec.shape
        size = _size(document.get("shape", list(row_shape)), spec)
        resize = _one_of(document, "resize", "bilinear", RESAMPLING)
        fit = _one_of(document, "fit", "stretch", FITS)
        self.decoder = PictureDecoder(size, resize, fit, _background(document))
        pixels = TensorSpec(spec.name, spec.dtype, (*spec.shape[: len(spec.shape) - len(row_shape)], *size))
        pixels.quantization = spec.quantization
        scaling = {name: document[name] for name in ("scale", "offset") if name in document}
        self.tables = PixelTables.of(pixels, scaling)
        self.fields = (Field(document.get("field", spec.name), "image", row_shape),)
        self.raw_spec = TensorSpec(spec.name, DTYPES["uint8"], spec.shape)
        load_decoder()

    def prepare(self, columns: Sequence[Sequence[Any]]) -> Tensor:
        """See `Preprocessor.prepare`."""
        (values,) = columns
        shape = self.spec.shape_of(len(values))
        if shape[:1] != (len(values),) and len(values) != 1:
            raise TensorError(f"input {self.spec.name!r} takes one picture at a time, got {len(values)}")
        pixels = [self._pixels(value, row) for row, value in enumerate(values)]
        return Tensor(self.spec.dtype, shape, b"".join(map(self.tables.apply, pixels)))

    def prepare_array(self, values: Sequence[float], shape: Sequence[int]) -> Tensor:
        """See `Preprocessor.prepare_array`."""
        if type(values) is memoryview and values.format == "B":
            return Tensor(self.spec.dtype, shape, self.tables.apply(bytes(values)))
        try:
            pixels = bytes(map(int, values))
        except (ValueError, OverflowError) as error:  # beyond a byte, NaN or an infinity
            raise TensorError(f"input {self.spec.name!r}: {_NOT_PIXELS}") from error
        if any(map(float.__ne__, map(float, values), map(float, pixels))):
            raise TensorError(f"input {self.spec.name!r}: {_NOT_PIXELS}")
        return Tensor(self.spec.dtype, shape, self.tables.apply(pixels))

    def _pixels(self, value: Any, row: int) -> bytes:
        """The pixels of a raw value."""
        field = self.fields[0]
        try:
            if type(value) is list:
                return bytes(pack(value, self.raw_spec, field.shape).data)
            return self.decoder.decode(_content(value))
        except TensorError as error:
            raise FieldError(field.name, row, f"{error}: {_NOT_PIXELS}") from error
        except (MalformedRequestError, PayloadTooLargeError) as error:
            raise FieldError(field.name, row, str(error)) from error


def _content(value: Any) -> Any:
    """The bytes of a file."""
    if type(value) is dict and len(value) == 1 and type(value.get("b64")) is str:
        try:
            return a2b_base64(value["b64"], strict_mode=True)
        except ValueError as error:
            raise MalformedRequestError(f"'b64' is not base64: {error}") from error
    if isinstance(value, (bytes, bytearray, memoryview)):
        return value
    got = "a missing value" if value is None else shown(value)
    raise MalformedRequestError(f'expected a picture as {{"b64": "…"}}, or its pixels in the model\'s shape, got {got}')


def _size(shape: Any, spec: TensorSpec) -> tuple[int, int, int]:
    if type(shape) is list and len(shape) == 2:
        shape = [*shape, 1]
    if type(shape) is not list or len(shape) != 3 or not all(type(size) is int and size > 0 for size in shape):
        raise ManifestError(f"shape: expected height, width and channels, got {str(shape)[:40]}")
    height, width, channels = shape
    if channels not in MODES or prod(shape) != spec.row_values or spec.dtype.kind not in ("int", "float"):
        raise ManifestError(f"pixels of shape {shape} do not make up a row of {spec!r}")
    return height, width, channels


def _one_of(document: Mapping[str, Any], name: str, default: str, known: Any) -> str:
    value = document.get(name, default)
    if value not in known:
        raise ManifestError(f"{name} {str(value)[:40]!r} is not one of {', '.join(known)}: deploy a newer litelambda")
    return str(value)


def _background(document: Mapping[str, Any]) -> tuple[int, int, int]:
    value = document.get("background", [255, 255, 255])
    if type(value) is not list or len(value) != 3 or not all(type(each) is int and 0 <= each <= 255 for each in value):
        raise ManifestError(f"background: expected red, green and blue from 0 to 255, got {str(value)[:40]}")
    return value[0], value[1], value[2]
