"""Images: one object is one row, the objects of a prefix are its rows, in the order of their keys.

They are decoded and resized as the manifest's preprocessing says. Where it speaks of numbers alone, an image of another
size than the model's is a bad row, unless the job asks for resizing.
"""

from __future__ import annotations

import gzip
import io
import zlib
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from litelambda_serving.bodies.images import check_image_size
from litelambda_serving.errors import (
    MalformedRequestError,
    ObjectNotFoundError,
    PayloadTooLargeError,
    RequestError,
)
from litelambda_serving.objects import objects_for
from litelambda_serving.objects.errors import ObjectReplacedError
from litelambda_serving.preprocessing.image import Image
from litelambda_serving.preprocessing.numbers import Numbers
from litelambda_serving.preprocessing.pictures import PictureDecoder
from litelambda_serving.preprocessing.pixels import PixelTables
from litelambda_serving.scoring.columns import column_of, row_bytes
from litelambda_serving.scoring.errors import SchemaError
from litelambda_serving.scoring.formats.base import BadRow, Chunk, DecodedRows, Reader, RowSchema
from litelambda_serving.scoring.inputs import list_images

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Buffer

    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.formats.base import Decoder
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
        if job.prepared:
            raise SchemaError("images hold raw values, not the model's own: leave out 'prepared'")
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
        (spec,) = schema.prepared_inputs or schema.inputs
        preprocessor = schema.raw_inputs.preprocessors[spec.name] if schema.raw_inputs is not None else None
        if isinstance(preprocessor, Image):
            self._pictures, self._tables = preprocessor.decoder, preprocessor.tables
        else:
            scaling = preprocessor.scaling if isinstance(preprocessor, Numbers) else schema.scaling.get(spec.name)
            try:
                self._pictures = PictureDecoder(check_image_size(spec, scaling), exact=not resize)
            except RequestError as error:
                raise SchemaError(str(error)) from error
            self._tables = PixelTables.of(spec, scaling)
        self._prefix = prefix

    def decode(self, chunk: Chunk) -> DecodedRows:
        """See `Decoder.decode`."""
        rows: list[Buffer] = []
        ids, bad = [], []
        for index, (url, data) in enumerate(chunk.payload):
            name = _name_of(url, self._prefix)
            try:
                rows.append(self._tables.apply(self._pixels(data, url)))
            except (_ImageError, MalformedRequestError, PayloadTooLargeError) as error:
                bad.append(BadRow(name, str(error), index))
            else:
                ids.append(name)
        return DecodedRows([(len(ids), [column_of(b"".join(rows))])] if rows else [], ids, None, bad)

    def _pixels(self, data: bytes | str, url: str) -> bytes:
        if isinstance(data, str):  # why there are no bytes
            raise _ImageError(data)
        return self._pictures.decode(_gunzipped(data) if url.lower().endswith(".gz") else data)


class _ImageError(ValueError):
    """An image cannot be read, or is too large."""


def _gunzipped(data: bytes) -> bytes:
    try:
        with gzip.open(io.BytesIO(data)) as stream:
            raw = stream.read(_MAX_IMAGE_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise _ImageError(f"a damaged gzip file: {error}") from error
    if len(raw) > _MAX_IMAGE_BYTES:
        raise _ImageError(f"unpacks to more than {_MAX_IMAGE_BYTES} bytes")
    return raw


def _name_of(url: str, prefix: str) -> str:
    """What addresses an image: its key below the prefix as it is, wherever it lies."""
    name = url.removeprefix(prefix) if prefix else url.rpartition("/")[2]
    return unquote(name) if url.startswith("file:") else name  # bytes that are not UTF-8 are shown as U+FFFD
