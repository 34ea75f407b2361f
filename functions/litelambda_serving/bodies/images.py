"""Pictures as model inputs: what an image input is, for requests and for batch scoring alike.

A model whose manifest has preprocessing of the kind "image" says so. Others, such as those of format version 1, take
pictures where their input has the shape of one: the pixels are then the raw values that `scale` and `offset` are for.
"""

from __future__ import annotations

from math import isqrt

from litelambda_serving.errors import RequestError
from litelambda_serving.preprocessing.base import FieldError
from litelambda_serving.preprocessing.image import Image
from litelambda_serving.preprocessing.pictures import MODES, PictureDecoder
from litelambda_serving.preprocessing.pixels import PixelTables
from litelambda_serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from typing_extensions import Buffer

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.tensor import TensorSpec

__all__ = ["check_image_size", "decode_image", "image_size"]


def decode_image(body: Buffer, spec: TensorSpec, manifest: Manifest, raw_inputs: RawInputs | None) -> dict[str, Tensor]:
    """Decode a picture into one row of the only input.

    Args:
        body: the file's bytes.
        spec: the input, shape (batch, height, width[, channels]), or flat where the manifest speaks of pixels.
        manifest: of the model; its preprocessing is applied.
        raw_inputs: what prepares the model's inputs; None where requests have the model's own values.

    Raises:
        RequestError: no picture that is read here, a damaged one, or a model without an image input.
        PayloadTooLargeError: more pixels than the function's memory allows.
        UnsupportedError: the package has no decoder.
    """
    preprocessing = (manifest.fields.get("preprocessing") or {}).get(spec.name)
    size = check_image_size(spec, preprocessing)
    if raw_inputs is None or not isinstance(raw_inputs.preprocessors[spec.name], Image):
        pixels = PictureDecoder(size).decode(body)
        return {spec.name: Tensor(spec.dtype, spec.shape_of(1), PixelTables.of(spec, preprocessing).apply(pixels))}
    try:
        return raw_inputs.prepare({name: [body] for name in raw_inputs.fields})
    except FieldError as error:
        cause = error.__cause__
        raise (cause if isinstance(cause, RequestError) else error) from None  # a body has neither fields nor rows


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
    shape = spec.shape[1:] if spec.batched or spec.shape[:1] == (1,) else spec.shape
    if preprocessing is not None and preprocessing.get("kind") == "image":
        height, width, *channels = preprocessing.get("shape", shape)
        return height, width, channels[0] if channels else 1
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
