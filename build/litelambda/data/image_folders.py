"""Reads images in class-named folders."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.data.stored_rows import Indices, RawDataset, Split, StoredRows, needs_streaming
from litelambda.recipe.sections import ImagesData

_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}
_AT_ONCE = 256  # decoded images that wait to be copied into their array

_Files = list[tuple[str, Path]]


def read_images(path: Path, settings: ImagesData) -> RawDataset:
    """Read the images below a folder; pixels are decoded now, or when rows are indexed.

    Raises:
        DataError: there are none, one is broken, or they have different sizes.
        OSError: a folder cannot be read.
    """
    if not path.is_dir():
        raise DataError(f"{path} is a file; data.format = 'images' expects a folder with a folder per class")
    parts = {name: path / name for name in ("train", "validation", "test") if (path / name).is_dir()}
    folders = parts if "train" in parts else {"train": path}
    files = {name: _list(folder) for name, folder in folders.items()}
    shape = _read_image(files["train"][0][1], settings).shape
    num_bytes = sum(map(len, files.values())) * int(np.prod(shape)) * 4
    streamed = needs_streaming(num_bytes) if settings.streaming is None else settings.streaming
    splits = {name: _split(each, settings, streamed=streamed) for name, each in files.items()}
    return RawDataset(splits["train"], splits.get("validation"), splits.get("test"), streamed)


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


def _split(named: _Files, settings: ImagesData, *, streamed: bool) -> Split:
    files, labels = [file for _, file in named], np.array([name for name, _ in named])
    first = _read_image(files[0], settings)
    rows = StoredRows((len(files), *first.shape), np.uint8, _Decoder(files, first.shape, settings))
    if not streamed:
        return Split(StoredRows.of(rows[:]), labels)
    for file in files:  # only headers: a wrong size is found now, not after hours of training
        _check_size(file, files[0], _size(file, settings) or first.shape[:2], first.shape)
    return Split(rows, labels)


class _Decoder:
    """Decodes images to one array (images, height, width, channels) of uint8, on all cores."""

    def __init__(self, files: Sequence[Path], shape: tuple[int, ...], settings: ImagesData) -> None:
        self._files, self._shape, self._settings = files, shape, settings
        self._threads = ThreadPoolExecutor(os.cpu_count())

    def __call__(self, wanted: Indices) -> NDArray[Any]:
        images = np.empty((len(wanted), *self._shape), np.uint8)
        for start in range(0, len(wanted), _AT_ONCE):
            files = [self._files[number] for number in wanted[start : start + _AT_ONCE]]
            decoded = self._threads.map(partial(_read_image, settings=self._settings), files)
            for index, (file, image) in enumerate(zip(files, decoded, strict=True), start):
                _check_size(file, self._files[0], image.shape, self._shape)
                images[index] = image
        return images


def _check_size(file: Path, other: Path, found: Sequence[int], expected: Sequence[int]) -> None:
    if tuple(found[:2]) != tuple(expected[:2]):
        raise DataError(
            f"{file} has {found[0]} x {found[1]} pixels, {other} has {expected[0]} x {expected[1]}: "
            "set data.image_size = [height, width]"
        )


def _size(file: Path, settings: ImagesData) -> tuple[int, int] | None:
    """Height and width of an image that is not to be resized."""
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            return None if settings.image_size is not None else (opened.height, opened.width)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is not a readable image: {error}") from error


def _read_image(file: Path, settings: ImagesData) -> NDArray[Any]:
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as opened:
            image = opened.convert("RGB" if settings.color == "rgb" else "L")
            if settings.image_size is not None:
                height, width = settings.image_size
                image = image.resize((width, height))
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as error:
        raise DataError(f"{file} is not a readable image: {error}") from error
    pixels = np.asarray(image)
    return pixels if pixels.ndim == 3 else pixels[:, :, np.newaxis]
