"""Reads images in class-named folders.

They are decoded by the preprocessor that serves the model. All of them are decoded before training begins, so that a
broken one is found now; pixels that stay on disk are decoded again when they are read.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import weakref
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.archive_errors import ARCHIVE_ERRORS
from litelambda.common.errors import DataError
from litelambda.common.wording import counted
from litelambda.data.raw_form import Columns, RawForm
from litelambda.data.scaling import fit_scaling
from litelambda.data.stored_rows import Indices, RawDataset, Split, StoredRows, needs_streaming
from litelambda.recipe.sections import ImagesData
from litelambda_serving.errors import RequestError
from litelambda_serving.preprocessing.image import Image
from litelambda_serving.preprocessing.pictures import PictureDecoder, size_of

__all__ = ["Pictures", "find_images", "read_images"]

_SUFFIXES = {
    *(".avif", ".bmp", ".gif", ".heic", ".jfif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
}  # those of formats that are not read too: they are named, not passed over
_AT_ONCE = 256  # decoded images that wait to be copied into their array
_FIELD = "image"
_NAMED = 5  # bad files in a message

_Files = list[tuple[str, Path]]


def read_images(path: Path, settings: ImagesData) -> RawDataset:
    """Read the images below a folder.

    Returns:
        Splits whose rows are numbers of files, of a `Pictures`.

    Raises:
        DataError: there are none, more are broken than the recipe tolerates, or they have different sizes.
        OSError: a folder cannot be read.
    """
    files, unpacked = find_images(path)
    every = [each for listed in files.values() for each in listed]
    shape = _shape([file for _, file in every], settings)
    num_bytes = len(every) * prod(shape) * 4
    streamed = needs_streaming(num_bytes) if settings.streaming is None else settings.streaming
    pictures = Pictures([file for _, file in every], shape, settings, unpacked)
    bad = pictures.read_all(keep=not streamed)
    notes = _report(bad, len(every), settings)
    splits, first = {}, 0
    for name, listed in files.items():
        numbers = [number for number in range(first, first + len(listed)) if every[number][1] not in bad]
        labels = np.array([every[number][0] for number in numbers])
        splits[name] = Split(StoredRows.of(np.array(numbers, np.intp)), labels)
        first += len(listed)
    return RawDataset(splits["train"], splits.get("validation"), splits.get("test"), streamed, pictures, notes)


def find_images(path: Path) -> tuple[dict[str, _Files], Unpacked | None]:
    """The images of a data set.

    Args:
        path: a folder with a folder per class, or with such folders below `train` and `test`; or a .zip of one.

    Returns:
        By split, the class and the file of each; and what keeps the files of a .zip while they are used.

    Raises:
        DataError: there are none.
        OSError: a folder cannot be read.
    """
    root, unpacked = path, None
    if path.suffix.lower() == ".zip" and path.is_file():
        unpacked = Unpacked(path)
        root = unpacked.folder
    elif not path.is_dir():
        raise DataError(f"{path} is a file; data.format = 'images' expects a folder with a folder per class, or a .zip")
    parts = {name: root / name for name in ("train", "validation", "test") if (root / name).is_dir()}
    folders = parts if "train" in parts else {"train": root}
    return {name: _list(folder) for name, folder in folders.items()}, unpacked


class Unpacked:
    """The content of a .zip in a temporary folder, which is removed with its last reader.

    Attributes:
        folder: where it lies.
    """

    def __init__(self, path: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="litelambda-images-"))
        weakref.finalize(self, shutil.rmtree, self.folder, ignore_errors=True)
        try:
            with zipfile.ZipFile(path) as archive:
                archive.extractall(self.folder)
        except ARCHIVE_ERRORS as error:
            raise DataError(f"{path} is not a readable .zip file: {error}") from error


def _list(folder: Path) -> _Files:
    """The images of a folder and the names of their classes."""
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    files = [
        (each.name, file)
        for each in classes
        for file in sorted(each.rglob("*"))
        if file.suffix.lower() in _SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise DataError(f"{folder} has no images in class-named folders")
    return files


def _shape(files: Sequence[Path], settings: ImagesData) -> tuple[int, int, int]:
    """Height, width and channels of all images: the recipe's size, or that of the first that can be read."""
    channels = 3 if settings.color == "rgb" else 1
    if settings.image_size is not None:
        height, width = settings.image_size
        return height, width, channels
    reasons = []
    for file in files:
        try:
            return *size_of(file.read_bytes()), channels
        except RequestError as error:
            reasons.append(f"{file}: {error}")
    raise DataError(f"not one of {counted(len(files), 'image')} can be read: {'; '.join(reasons[:_NAMED])}")


def _report(bad: dict[Path, str], total: int, settings: ImagesData) -> tuple[str, ...]:
    """What is said of the files that cannot be read.

    Raises:
        DataError: they are more than the recipe tolerates.
    """
    if not bad:
        return ()
    named = "; ".join(f"{file}: {reason}" for file, reason in [*bad.items()][:_NAMED])
    text = f"{len(bad):,} of {counted(total, 'image')} cannot be read: {named}{'; …' if len(bad) > _NAMED else ''}"
    if len(bad) > settings.tolerated_bad * total:
        raise DataError(f"{text}. That is more than data.tolerated_bad = {settings.tolerated_bad} allows")
    return (f"{text}. {'It is' if len(bad) == 1 else 'They are'} left out",)


class Pictures:
    """The files of a data set; see `litelambda.data.raw_form.RawSource`."""

    def __init__(
        self,
        files: Sequence[Path],
        shape: tuple[int, int, int],
        settings: ImagesData,
        unpacked: Unpacked | None = None,
    ) -> None:
        self._files, self._shape, self._settings = files, shape, settings
        self._unpacked = unpacked
        self._exact = settings.image_size is None
        red, green, blue = settings.background
        background = (red, green, blue)
        self._decoder = PictureDecoder(shape, settings.resize, settings.fit, background, exact=self._exact)
        self._threads = ThreadPoolExecutor(os.cpu_count())
        self._kept: NDArray[np.uint8] | None = None

    def __len__(self) -> int:
        return len(self._files)

    def read_all(self, *, keep: bool) -> dict[Path, str]:
        """Decode every file once.

        Args:
            keep: whether the pixels are kept in memory.

        Returns:
            Why files cannot be read, by file.

        Raises:
            DataError: files have different sizes, and the recipe has no `image_size`.
        """
        kept = np.zeros((len(self) if keep else 0, *self._shape), np.uint8)
        bad = {}
        for number, found in self._decoded(range(len(self)), self._attempt):
            if isinstance(found, str):
                bad[self._files[number]] = found
            elif keep:
                kept[number] = found
        self._kept = kept if keep else None
        return bad

    def read(self, numbers: Indices) -> Columns:
        """The content of some files."""
        return {_FIELD: [self._files[number].read_bytes() for number in numbers.tolist()]}

    def fit(self, numbers: Indices) -> RawForm:
        """What files become, from the pixels of the training files."""
        scaling = fit_scaling(self._settings.normalize, self._pixels(StoredRows.of(numbers)), per_column=False)
        row_shape = tuple(self._settings.reshape or self._shape)
        if prod(row_shape) != prod(self._shape):
            raise DataError(
                f"data.reshape = {list(row_shape)} has {prod(row_shape)} values, but images have the shape "
                f"{list(self._shape)}"
            )
        rules = {"resize": self._settings.resize, "fit": self._settings.fit, "background": self._settings.background}
        document = {"kind": "image", "field": _FIELD, "shape": [*self._shape], **rules}
        numbers_of = {"scale": scaling.scale, "offset": scaling.offset} if scaling else {"scale": 1.0, "offset": 0.0}
        return RawForm(document | numbers_of, row_shape)

    def place(self, number: int) -> str:
        """The name of a file."""
        return str(self._files[number])

    def prepared(self, numbers: StoredRows, form: RawForm) -> StoredRows:
        """The rows that the model reads, made when they are indexed.

        Args:
            numbers: of the files.
            form: what they become.
        """
        preprocessor = form.preprocessor
        assert isinstance(preprocessor, Image)  # noqa: S101 - `fit` made it
        apply = preprocessor.tables.apply

        def values(part: NDArray[np.uint8]) -> NDArray[np.float32]:
            return np.frombuffer(apply(part.tobytes()), np.float32).reshape(len(part), *form.row_shape)

        return self._pixels(numbers).with_row_shape(form.row_shape).map(values, np.float32)

    def _pixels(self, numbers: StoredRows) -> StoredRows:
        """The pixels of some files, uint8."""

        def read(wanted: Indices) -> NDArray[Any]:
            chosen = numbers[wanted]
            pixels: NDArray[Any]
            if self._kept is not None:
                pixels = self._kept[chosen]
                return pixels
            pixels = np.empty((len(chosen), *self._shape), np.uint8)
            for place, (_number, found) in enumerate(self._decoded(chosen.tolist(), self._decode)):
                pixels[place] = found
            return pixels

        return StoredRows((len(numbers), *self._shape), np.uint8, read)

    def _decoded(self, numbers: Sequence[int], decode: Callable[[int], Any]) -> Iterator[tuple[int, Any]]:
        """Some files on all cores, in order."""
        for start in range(0, len(numbers), _AT_ONCE):
            some = numbers[start : start + _AT_ONCE]
            yield from zip(some, self._threads.map(decode, some), strict=True)

    def _decode(self, number: int) -> NDArray[np.uint8]:
        file = self._files[number]
        try:
            return np.frombuffer(self._decoder.decode(file.read_bytes()), np.uint8).reshape(self._shape)
        except RequestError as error:
            raise DataError(f"{file} is not a readable image: {error}") from error

    def _attempt(self, number: int) -> NDArray[np.uint8] | str:
        """The pixels of a file, or why there are none.

        Raises:
            DataError: it has another size than others, and the recipe has no `image_size`.
        """
        file = self._files[number]
        data = file.read_bytes()
        try:
            if self._exact and (size := size_of(data)) != self._shape[:2]:
                raise DataError(
                    f"{file} has {size[0]} x {size[1]} pixels, others have {self._shape[0]} x {self._shape[1]}: "
                    "set data.image_size = [height, width]"
                )
            return np.frombuffer(self._decoder.decode(data), np.uint8).reshape(self._shape)
        except RequestError as error:
            return str(error)
