"""Pictures as model inputs: decoded by Pillow, which is imported with the first one and only if it is packaged.

A picture's pixels are the raw values that the manifest's `preprocessing` speaks of: model value = raw * scale + offset.
"""

from __future__ import annotations

import struct
from io import BytesIO
from math import isqrt, prod

from serving.errors import MalformedRequestError, PayloadTooLargeError, RequestError, UnsupportedError
from serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from typing_extensions import Buffer

    from serving.manifest import Manifest
    from serving.tensor import TensorSpec

__all__ = ["FORMATS", "decode_image", "image_size"]

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
"""Pillow's name of each content type that is taken."""

MAX_PIXELS = 16 * 1024 * 1024
"""A small file can unfold to any number of pixels."""

_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def decode_image(body: Buffer, content_type: str, spec: TensorSpec, manifest: Manifest) -> Tensor:
    """Decode a picture into one row of an image input, resized to the model's size.

    Args:
        body: the file's bytes.
        content_type: "image/png" or "image/jpeg".
        spec: the input, shape (batch, height, width[, channels]), or flat where the manifest speaks of pixels.
        manifest: of the model; its preprocessing is applied.

    Raises:
        RequestError: another kind of picture, a damaged one, or a model without an image input.
        PayloadTooLargeError: more than `MAX_PIXELS`.
        UnsupportedError: Pillow is not in the package.
    """
    if content_type not in FORMATS:
        raise RequestError(f"content type {content_type[:60]!r}: expected one of {', '.join(FORMATS)}")
    preprocessing: dict[str, float] | None = (manifest.fields.get("preprocessing") or {}).get(spec.name)
    size = image_size(spec, preprocessing is not None)
    if size is None:
        raise RequestError(f"input {spec.name!r} of shape {list(spec.shape)} is no image")
    pixels = _decode(body, FORMATS[content_type], *size)
    data = _values(pixels, spec, preprocessing)
    return Tensor(spec.dtype, (1, *spec.shape[1:]) if spec.batched else spec.shape, data)


def image_size(spec: TensorSpec, preprocessed: bool) -> tuple[int, int, int] | None:
    """Height, width and channels of an image input; None for an input that is none.

    A flat row of a square number of values is a grey square, if the manifest speaks of its pixels.
    """
    shape = spec.shape[1:] if spec.batched else spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape
    if len(shape) == 3 and shape[2] in _MODES:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], shape[1], 1
    side = isqrt(prod(shape))
    return (side, side, 1) if preprocessed and len(shape) == 1 and side * side == prod(shape) else None


def _decode(body: Buffer, kind: str, height: int, width: int, channels: int) -> bytes:
    """The pixels of a picture, row-major, channels last, at the size asked for."""
    try:
        from PIL import Image
    except ImportError as error:
        raise UnsupportedError(
            "this deployment has no image decoder: package Pillow with the function, or send the pixels as a tensor"
        ) from error
    try:
        with Image.open(BytesIO(body), formats=[kind]) as picture:
            _check_pixels(picture.width, picture.height)
            converted = picture.convert(_MODES[channels])
            if converted.size != (width, height):
                converted = converted.resize((width, height), Image.Resampling.BILINEAR)
            pixels: bytes = converted.tobytes()
    except PayloadTooLargeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PayloadTooLargeError(f"the picture has more pixels than the limit of {MAX_PIXELS}") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything, and it is the client's
        raise MalformedRequestError(f"the body is not a readable {kind} file: {type(error).__name__}") from error
    return pixels


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PayloadTooLargeError(f"the picture has {width} x {height} pixels, over the limit of {MAX_PIXELS}")


def _values(pixels: bytes, spec: TensorSpec, preprocessing: dict[str, float] | None) -> bytes:
    """The model's values of all pixels, through a table of the 256 there can be.

    Codes of a model that says nothing of preprocessing are the pixels themselves, int8 ones around -128.
    """
    dtype, scheme = spec.dtype, spec.quantization
    if preprocessing is not None:
        values: list[Any] = [raw * preprocessing["scale"] + preprocessing["offset"] for raw in range(256)]
        if scheme is not None:
            values = [round(value / scheme.scale) + scheme.zero_point for value in values]
    else:
        values = [raw - 128 if dtype.name == "int8" else raw for raw in range(256)]
    if dtype.kind == "float":
        table = [struct.pack(f"<{dtype.format}", value) for value in values]
        return b"".join(map(table.__getitem__, pixels))
    low, high = (-128, 127) if dtype.name == "int8" else (0, 255)
    if dtype.itemsize != 1 or dtype.kind != "int":
        raise RequestError(f"input {spec.name!r} of dtype {dtype.name} is no image")
    return pixels.translate(bytes(min(max(round(value), low), high) & 0xFF for value in values))
