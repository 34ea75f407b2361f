"""Pictures as model inputs: decoded by Pillow, which is imported with the first one and only if it is packaged.

A picture's pixels are the raw values that the manifest's `preprocessing` speaks of: model value = raw * scale + offset.
What is an image input, and what a pixel becomes, is said here for requests and for batch scoring alike.
"""

from __future__ import annotations

import struct
from io import BytesIO
from itertools import cycle
from math import isqrt

from litelambda_serving.errors import MalformedRequestError, PayloadTooLargeError, RequestError, UnsupportedError
from litelambda_serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from typing_extensions import Buffer

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.tensor import TensorSpec

__all__ = ["FORMATS", "MODES", "by_channel", "check_image_size", "decode_image", "image_size", "pixel_values"]

FORMATS = {"image/png": "PNG", "image/jpeg": "JPEG"}
"""Pillow's name of each content type that is taken."""

MAX_PIXELS = 16 * 1024 * 1024
"""A small file can unfold to any number of pixels."""

MODES = {1: "L", 3: "RGB", 4: "RGBA"}
"""Pillow's name of the pixels of so many channels."""


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
    preprocessing = (manifest.fields.get("preprocessing") or {}).get(spec.name)
    height, width, channels = check_image_size(spec, preprocessing)
    pixels = _decode(body, FORMATS[content_type], height, width, channels)
    tables = [pixel_values(spec, each) for each in by_channel(preprocessing, channels)]
    if len(tables) > 1:
        data = b"".join([table[pixel] for table, pixel in zip(cycle(tables), pixels)])
    elif spec.dtype.itemsize == 1:
        data = pixels.translate(b"".join(tables[0]))
    else:
        data = b"".join(map(tables[0].__getitem__, pixels))
    return Tensor(spec.dtype, spec.shape_of(1), data)


def check_image_size(spec: TensorSpec, preprocessing: Mapping[str, Any] | None) -> tuple[int, int, int]:
    """See `image_size`.

    Raises:
        RequestError: the input is not an image.
    """
    size = image_size(spec, preprocessing)
    if size is None:
        raise RequestError(
            f"input {spec.name!r} of shape {list(spec.shape)} is not an image: expected numbers of shape "
            "[height, width] or [height, width, channels], or a flat square of pixels with one scale in the "
            "manifest's preprocessing"
        )
    return size


def image_size(spec: TensorSpec, preprocessing: Mapping[str, Any] | None) -> tuple[int, int, int] | None:
    """Height, width and channels of an image input; None for an input that is not an image.

    A flat row is a gray or RGB square where the manifest has one scale for all of its values. Without any, or with one
    for each, it is a table's row. A scale for each channel goes with shapes that have channels.

    Args:
        spec: the input.
        preprocessing: the manifest's, of this input; None where it has none.
    """
    shape = spec.shape[1:] if spec.batched else spec.shape[1:] if spec.shape[:1] == (1,) else spec.shape
    lists = [value for value in (preprocessing or {}).values() if isinstance(value, list)]
    has_one_scale = preprocessing is not None and not lists and type(preprocessing.get("scale")) in (int, float)
    has_channels = bool(lists) and len(shape) == 3 and all(len(values) == shape[2] for values in lists)
    if spec.dtype.kind not in ("int", "float") or not (preprocessing is None or has_one_scale or has_channels):
        return None
    if len(shape) == 3 and shape[2] in MODES:
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], shape[1], 1
    for channels in (1, 3) if has_one_scale and len(shape) == 1 else ():
        side = isqrt(shape[0] // channels)
        if side * side * channels == shape[0]:
            return side, side, channels
    return None


def by_channel(preprocessing: Mapping[str, Any] | None, channels: int) -> list[Mapping[str, Any] | None]:
    """The manifest's preprocessing of each channel; one for all where it has no lists."""
    if preprocessing is None or not any(isinstance(value, list) for value in preprocessing.values()):
        return [preprocessing]
    return [
        {key: value[channel] if isinstance(value, list) else value for key, value in preprocessing.items()}
        for channel in range(channels)
    ]


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
            converted = picture.convert(MODES[channels])
            if converted.size != (width, height):
                converted = converted.resize((width, height), Image.Resampling.BILINEAR)
            pixels: bytes = converted.tobytes()
    except PayloadTooLargeError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise PayloadTooLargeError(f"the picture has more pixels than the limit of {MAX_PIXELS}") from error
    except Exception as error:  # a damaged file makes Pillow raise nearly anything: the client's fault
        raise MalformedRequestError(f"the body is not a readable {kind} file: {type(error).__name__}") from error
    return pixels


def _check_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise PayloadTooLargeError(f"the picture has {width} x {height} pixels, over the limit of {MAX_PIXELS}")


def pixel_values(spec: TensorSpec, preprocessing: Mapping[str, Any] | None) -> list[bytes]:
    """The model's value of each of the 256 that a pixel can have, in the input's dtype.

    Floats are those of training, where float32 was scaled: each step is rounded to float32. Codes of a model that says
    nothing of preprocessing are the pixels themselves, int8 ones around -128.
    """
    dtype, scheme = spec.dtype, spec.quantization
    values: list[Any]
    if preprocessing is None:
        values = [raw - 128 if dtype.name == "int8" else raw for raw in range(256)]
    else:
        scale, offset = _float32(preprocessing["scale"]), _float32(preprocessing.get("offset", 0.0))
        values = [_float32(_float32(raw * scale) + offset) for raw in range(256)]
        if scheme is not None:
            values = [round(value / scheme.scale) + scheme.zero_point for value in values]
    if dtype.kind == "int":
        count = 1 << 8 * dtype.itemsize
        low = 0 if dtype.name.startswith("u") else -count // 2
        values = [min(max(round(value), low), low + count - 1) for value in values]
    return [struct.pack(f"<{dtype.format}", value) for value in values]


def _float32(value: float) -> float:
    rounded: float = struct.unpack("f", struct.pack("f", value))[0]
    return rounded
