"""PNG and JPEG images: one object is a row of one, all objects of a prefix are its rows, in the order of their keys.

Pixels become the model's values by the manifest's preprocessing. An image of another size than the model's is a bad
row, unless the job asks for resizing.
"""

from __future__ import annotations

import gzip
import io
import math
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.scoring.batching import BytesColumn, row_bytes, row_shape
from serving.scoring.errors import InputNotFoundError, InputReplacedError, SchemaError
from serving.scoring.formats.base import BadRow, Chunk, Model, Rows
from serving.scoring.formats.values import bytes_of, to_model
from serving.scoring.storage import objects_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from serving.scoring.formats.base import Array, Decoder
    from serving.scoring.job import Job
    from serving.scoring.storage import ObjectInfo

__all__ = ["ImagesReader", "image_size"]

_ENDINGS = (".png", ".jpg", ".jpeg")
_IMAGES_PER_CHUNK = 64
_CHUNK_BYTES = 8 * 1024 * 1024
_MAX_IMAGE_BYTES = 64 * 1024 * 1024
_FETCHES = 8


def image_size(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Height, width and channels of a row that is an image; of a flat one, the square that it can be.

    Raises:
        SchemaError: it cannot be an image.
    """
    if len(shape) == 3 and shape[2] in (1, 3, 4):
        return shape[0], shape[1], shape[2]
    if len(shape) == 2:
        return shape[0], shape[1], 1
    if len(shape) == 1:
        for channels in (1, 3):
            side = math.isqrt(shape[0] // channels)
            if side * side * channels == shape[0]:
                return side, side, channels
    raise SchemaError(f"rows of shape {list(shape)} are no images: expected [height, width, channels] or a flat square")


class ImagesReader:
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, model: Model) -> None:
        if len(model.inputs) != 1:
            raise SchemaError("the model has several inputs: images can be scored by models with one")
        self._info = info
        self._prefix = job.input if job.input.endswith("/") else ""
        self._after, self._limit = job.start_after, job.limit
        self.decoder: Decoder = ImagesDecoder(model, self._prefix, resize=job.resize)
        self.total_bytes = info.size
        self._per_chunk = max(1, min(_IMAGES_PER_CHUNK, _CHUNK_BYTES // max(row_bytes(model.inputs[0]), 1)))

    def chunks(self, position: dict[str, Any] | None) -> Iterator[Chunk]:
        """See `Reader.chunks`."""
        count, done, after = (position[key] for key in ("count", "bytes", "after")) if position else (0, 0, self._after)
        found = self._list(after)
        if self._limit is not None:
            found = islice(found, self._limit - count)
        with ThreadPoolExecutor(_FETCHES, thread_name_prefix="images") as executor:
            while batch := list(islice(found, self._per_chunk)):
                payload = list(zip([each.url for each in batch], executor.map(_fetch, batch), strict=True))
                first, count, done = count, count + len(batch), done + sum(each.size for each in batch)
                yield Chunk(payload, first, {"count": count, "bytes": done, "after": batch[-1].url}, done)

    def close(self) -> None:
        """See `Reader.close`."""

    def _list(self, after: str) -> Iterator[ObjectInfo]:
        if not self._prefix:
            return iter([self._info] if after < self._info.url else [])
        listed = objects_for(self._prefix).list(self._prefix, after)
        return (each for each in listed if each.url.lower().removesuffix(".gz").endswith(_ENDINGS))


def _fetch(info: ObjectInfo) -> bytes | str:
    """An image's bytes, or why there are none."""
    if info.size > _MAX_IMAGE_BYTES:
        return f"{info.size} bytes, an image may have {_MAX_IMAGE_BYTES}"
    try:
        return objects_for(info.url).read(info, 0, info.size)
    except (InputNotFoundError, InputReplacedError) as error:
        return str(error)


class ImagesDecoder:
    """See `base.Decoder`."""

    id_name = "file"
    passthrough: tuple[str, ...] | None = ()

    def __init__(self, model: Model, prefix: str, *, resize: bool) -> None:
        self._spec = model.inputs[0]
        self._preprocessing = model.preprocessing.get(self._spec.name)
        self._size = image_size(row_shape(self._spec))
        self._prefix = prefix
        self._resize = resize

    def decode(self, chunk: Chunk) -> Rows:
        """See `Decoder.decode`."""
        images: list[Array] = []
        ids, bad = [], []
        for index, (url, data) in enumerate(chunk.payload):
            name = url.removeprefix(self._prefix) if self._prefix else url.rpartition("/")[2]
            try:
                images.append(self._pixels(data, url))
            except ValueError as error:
                bad.append(BadRow(name, str(error), index))
            else:
                ids.append(name)
        if not images:
            return Rows([], ids, None, bad)
        array = to_model(np.stack(images), self._spec, self._preprocessing)
        return Rows([(len(ids), [BytesColumn(bytes_of(array))])], ids, None, bad)

    def _pixels(self, data: bytes | str, url: str) -> Array:
        from PIL import Image, UnidentifiedImageError

        if isinstance(data, str):  # why there are no bytes
            raise ValueError(data)  # noqa: TRY004 - no wrong type: a bad row like any other
        height, width, channels = self._size
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                raw = _gunzipped(data) if url.lower().endswith(".gz") else data
                with Image.open(io.BytesIO(raw), formats=("PNG", "JPEG")) as opened:
                    if opened.size != (width, height) and not self._resize:
                        raise ValueError(
                            f"{opened.size[0]} x {opened.size[1]} pixels, the model takes {width} x {height}"
                        )
                    image = opened.convert({1: "L", 3: "RGB", 4: "RGBA"}[channels])
        except UnidentifiedImageError as error:
            raise ValueError("neither PNG nor JPEG") from error
        except (
            OSError,
            SyntaxError,
            EOFError,
            zlib.error,
            Image.DecompressionBombError,
            Image.DecompressionBombWarning,
        ) as error:
            raise ValueError(f"a damaged image: {error}") from error
        if image.size != (width, height):
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return np.asarray(image)


def _gunzipped(data: bytes) -> bytes:
    with gzip.open(io.BytesIO(data)) as stream:
        raw = stream.read(_MAX_IMAGE_BYTES + 1)
    if len(raw) > _MAX_IMAGE_BYTES:
        raise ValueError(f"unpacks to more than {_MAX_IMAGE_BYTES} bytes")
    return raw
