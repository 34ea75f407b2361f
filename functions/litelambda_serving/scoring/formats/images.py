"""PNG and JPEG images: one object is one row, the objects of a prefix are its rows, in the order of their keys.

Pixels become the model's values by the manifest's preprocessing. An image of another size than the model's is a bad
row, unless the job asks for resizing.
"""

from __future__ import annotations

import gzip
import io
import warnings
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import numpy as np

from litelambda_serving.bodies.images import MODES, by_channel, check_image_size, pixel_values
from litelambda_serving.errors import ObjectNotFoundError, RequestError
from litelambda_serving.objects import objects_for
from litelambda_serving.objects.errors import ObjectReplacedError
from litelambda_serving.scoring.columns import column_of, row_bytes
from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.scoring.formats.base import BadRow, Chunk, DecodedRows, Reader, RowSchema
from litelambda_serving.scoring.formats.values import bytes_of
from litelambda_serving.scoring.inputs import list_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.formats.base import Array, Decoder
    from litelambda_serving.scoring.job import Job

__all__ = ["ImagesReader"]

_IMAGES_PER_CHUNK = 64
_CHUNK_BYTES = 8 * 1024 * 1024
_MAX_IMAGE_BYTES = 64 * 1024 * 1024
_FETCHES = 8


class ImagesReader(Reader):
    """See `base.Reader`."""

    def __init__(self, job: Job, info: ObjectInfo, schema: RowSchema) -> None:
        if len(schema.inputs) != 1:
            raise SchemaError("the model has several inputs: images can be scored by models with one")
        self._info = info
        self._prefix = job.input if job.input.endswith("/") else ""
        self._after, self._limit = job.start_after, job.limit
        self.decoder: Decoder = ImagesDecoder(schema, self._prefix, resize=job.resize)
        self.total_bytes = info.size
        self._per_chunk = max(1, min(_IMAGES_PER_CHUNK, _CHUNK_BYTES // max(row_bytes(schema.inputs[0]), 1)))

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

    def _list(self, after: str) -> Iterator[ObjectInfo]:
        if not self._prefix:
            return iter([self._info] if after < self._info.url else [])
        return list_images(self._prefix, after)


def _fetch(info: ObjectInfo) -> bytes | str:
    """An image's bytes, or why there are none."""
    if info.size > _MAX_IMAGE_BYTES:
        return f"{info.size} bytes, an image may have {_MAX_IMAGE_BYTES}"
    try:
        return objects_for(info.url).read(info, 0, info.size)
    except (ObjectNotFoundError, ObjectReplacedError) as error:
        return str(error)


class ImagesDecoder:
    """See `base.Decoder`."""

    id_name = "file"
    passthrough: tuple[str, ...] | None = ()

    def __init__(self, schema: RowSchema, prefix: str, *, resize: bool) -> None:
        spec = schema.inputs[0]
        preprocessing = schema.scaling.get(spec.name)
        try:
            self._size = check_image_size(spec, preprocessing)
        except RequestError as error:
            raise SchemaError(str(error)) from error
        tables = [b"".join(pixel_values(spec, each)) for each in by_channel(preprocessing, self._size[2])]
        self._values = np.frombuffer(b"".join(tables), spec.dtype.name).reshape(len(tables), 256)
        self._prefix = prefix
        self._resize = resize

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        images: list[Array] = []
        ids, bad = [], []
        for index, (url, data) in enumerate(chunk.payload):
            name = _name_of(url, self._prefix)
            try:
                images.append(self._pixels(data, url))
            except ValueError as error:
                bad.append(BadRow(name, str(error), index))
            else:
                ids.append(name)
        if not images:
            return DecodedRows([], ids, None, bad)
        return DecodedRows([(len(ids), [column_of(bytes_of(self._of(np.stack(images))))])], ids, None, bad)

    def _of(self, pixels: Array) -> Array:
        """The model's values of (images, height, width[, channels]) pixels."""
        found: Array = self._values[np.arange(len(self._values)) if len(self._values) > 1 else 0, pixels]
        return found

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
                    self._check_size(*opened.size)
                    image = opened.convert(MODES[channels])
                if image.size != (width, height):
                    image = image.resize((width, height), Image.Resampling.BILINEAR)
                return np.asarray(image)
        except (_ImageError, MemoryError):
            raise
        except UnidentifiedImageError as error:
            raise ValueError("neither PNG nor JPEG") from error
        except Exception as error:  # a damaged file makes Pillow raise nearly anything
            raise ValueError(f"a damaged image: {error or type(error).__name__}") from error

    def _check_size(self, width: int, height: int) -> None:
        wanted_height, wanted_width, _channels = self._size
        if (width, height) != (wanted_width, wanted_height) and not self._resize:
            raise _ImageError(f"{width} x {height} pixels, the model takes {wanted_width} x {wanted_height}")


class _ImageError(ValueError):
    """An image is too large, or not of the model's size."""


def _gunzipped(data: bytes) -> bytes:
    with gzip.open(io.BytesIO(data)) as stream:
        raw = stream.read(_MAX_IMAGE_BYTES + 1)
    if len(raw) > _MAX_IMAGE_BYTES:
        raise _ImageError(f"unpacks to more than {_MAX_IMAGE_BYTES} bytes")
    return raw


def _name_of(url: str, prefix: str) -> str:
    """What addresses an image: its key below the prefix as it is, wherever it lies."""
    name = url.removeprefix(prefix) if prefix else url.rpartition("/")[2]
    return unquote(name) if url.startswith("file:") else name  # bytes that are not UTF-8 are shown as U+FFFD
