"""Reads data sets as they lie on disk: .npz arrays, class-named folders of images, CSV tables.

What comes out is raw: nothing is normalised, encoded or split here.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import DataError
from litelambda.sections import CsvData, ImagesData, NpzData

_IMAGE_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class Split:
    """Rows of a data set: `x[i]` is what `y[i]` is to be predicted from."""

    x: NDArray[Any]
    y: NDArray[Any]

    def __len__(self) -> int:
        return len(self.x)

    def take(self, indices: NDArray[np.intp]) -> Split:
        """Some of the rows, in the order of `indices`."""
        return Split(self.x[indices], self.y[indices])


@dataclass(frozen=True)
class Source:
    """A data set as it was found; a split that it does not have is None."""

    train: Split
    validation: Split | None
    test: Split | None

    def map(self, change: Callable[[Split], Split]) -> Source:
        """The same change made to every split."""
        return Source(
            change(self.train),
            change(self.validation) if self.validation is not None else None,
            change(self.test) if self.test is not None else None,
        )


def read_source(settings: NpzData | ImagesData | CsvData, path: Path) -> Source:
    """Read the data set that a recipe names.

    Args:
        settings: the recipe's `data` section.
        path: its `path`, resolved.

    Raises:
        DataError: the data set is missing, unreadable, empty or not of the declared form.
    """
    if not path.exists():
        raise DataError(f"there is no data set at {path} (data.path = {settings.path!r})")
    try:
        if isinstance(settings, NpzData):
            source = _read_npz(path)
        elif isinstance(settings, CsvData):
            source = Source(_read_csv(path, settings), None, None)
        else:
            source = _read_images(path, settings)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    for name, split in (("training", source.train), ("validation", source.validation), ("test", source.test)):
        _check(name, split, path)
    return source


def _check(name: str, split: Split | None, path: Path) -> None:
    if split is None:
        return
    if len(split.x) != len(split.y):
        raise DataError(f"{path}: the {name} split has {len(split.x)} rows but {len(split.y)} labels")
    if not len(split):
        raise DataError(f"{path}: the {name} split has no rows")
    if split.x.dtype.kind not in "buif":
        raise DataError(f"{path}: the {name} rows are of type {split.x.dtype}, expected numbers")
    if split.x.dtype.kind == "f" and not np.isfinite(split.x).all():
        row = int(np.argwhere(~np.isfinite(split.x))[0][0])
        raise DataError(f"{path}: row {row} of the {name} split holds NaN or infinity")


def _read_npz(path: Path) -> Source:
    with path.open("rb") as file:
        try:
            return _read_arrays(path, np.load(file, allow_pickle=False))
        except (ValueError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is not a readable .npz file: {error}") from error


def _read_arrays(path: Path, arrays: Any) -> Source:
    if not isinstance(arrays, np.lib.npyio.NpzFile):
        raise DataError(f"{path} is a single array, expected a .npz with x_train and y_train")
    names = set(arrays.files)

    def split(part: str) -> Split | None:
        complete = {f"x{part}", f"y{part}"} <= names
        return Split(arrays[f"x{part}"], arrays[f"y{part}"]) if complete else None

    train = split("_train" if "x_train" in names else "")
    if train is None:
        raise DataError(f"{path} holds {', '.join(sorted(names)) or 'nothing'}; expected x_train, y_train or x, y")
    return Source(train, split("_validation"), split("_test"))


def _read_csv(path: Path, settings: CsvData) -> Split:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            lines = [(number, line) for number, line in enumerate(csv.reader(file), start=1) if line]
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"{path} is not a CSV file: {error}") from error
    header = lines[0][1] if lines else []
    features = settings.features or [name for name in header if name != settings.label]
    missing = [name for name in (settings.label, *features) if name not in header]
    if missing:
        raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
    columns = [header.index(name) for name in features]
    label = header.index(settings.label)
    x = np.empty((len(lines) - 1, len(columns)), np.float32)
    y: list[Any] = []
    number = _number_at(path)
    for row, (line_number, line) in enumerate(lines[1:]):
        if len(line) != len(header):
            raise DataError(f"{path}, line {line_number}: {len(line)} fields, the header has {len(header)}")
        x[row] = [number(line_number, name, line[column]) for name, column in zip(features, columns, strict=True)]
        target = line[label].strip()
        y.append(target if settings.task == "classification" else number(line_number, settings.label, target))
    return Split(x, np.array(y))


def _number_at(path: Path) -> Callable[[int, str, str], float]:
    def number(line: int, column: str, text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise DataError(f"{path}, line {line}: {text!r} in column {column!r} is not a number") from None

    return number


def _read_images(path: Path, settings: ImagesData) -> Source:
    if not path.is_dir():
        raise DataError(f"{path} is a file; data.format = 'images' expects a folder with a folder per class")
    parts = {name: path / name for name in ("train", "validation", "test") if (path / name).is_dir()}
    if "train" not in parts:
        return Source(_read_class_folders(path, settings), None, None)
    splits = {name: _read_class_folders(folder, settings) for name, folder in parts.items()}
    return Source(splits["train"], splits.get("validation"), splits.get("test"))


def _read_class_folders(folder: Path, settings: ImagesData) -> Split:
    classes = sorted(each for each in folder.iterdir() if each.is_dir() and not each.name.startswith("."))
    files = [
        (each.name, file)
        for each in classes
        for file in sorted(each.rglob("*"))
        if file.suffix.lower() in _IMAGE_SUFFIXES and not file.name.startswith(".")
    ]
    if not files:
        raise DataError(f"{folder} has no images in class-named folders")
    images = _read_same_size([file for _, file in files], settings)
    return Split(images, np.array([name for name, _ in files]))


def _read_same_size(files: Sequence[Path], settings: ImagesData) -> NDArray[Any]:
    """Decode images to one array (images, height, width, channels) of uint8."""
    first = _read_image(files[0], settings)
    images = np.empty((len(files), *first.shape), np.uint8)
    for index, file in enumerate(files):
        image = _read_image(file, settings)
        if image.shape != first.shape:
            raise DataError(
                f"{file} has {image.shape[0]} x {image.shape[1]} pixels, {files[0]} has {first.shape[0]} x "
                f"{first.shape[1]}: give data.image_size = [height, width]"
            )
        images[index] = image
    return images


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
