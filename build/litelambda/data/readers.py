"""Reads data sets from disk: .npz and .npy arrays, folders of images, tables in CSV and Parquet, and texts.

The result is raw: nothing is normalized, encoded or split here. Labels are read into memory. Rows are too, unless
`data.streaming` is set or they would take too much memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from litelambda.common.errors import DataError
from litelambda.data.csv_tables import read_table
from litelambda.data.image_folders import read_images
from litelambda.data.npz import read_array_files
from litelambda.data.stored_rows import RawDataset, Split, chunks
from litelambda.data.texts import read_texts
from litelambda.recipe.sections import ArraysData, CsvData, ImagesData, ParquetData, TextData, resolve_path

__all__ = ["RawDataset", "Split", "read_source"]


def read_source(settings: ArraysData | ImagesData | CsvData | ParquetData | TextData, folder: Path) -> RawDataset:
    """Read the data set that a recipe names.

    Args:
        settings: the recipe's `data` section.
        folder: the recipe's, which paths are relative to.

    Returns:
        Splits whose rows are `StoredRows`.

    Raises:
        DataError: the data set is missing, unreadable, empty or not of the declared form.
    """
    path = resolve_path(settings.path, folder)
    if not path.exists():
        raise DataError(f"there is no data set at {path} (data.path = {settings.path!r})")
    try:
        if isinstance(settings, ArraysData):
            source = read_array_files(path, settings)
        elif isinstance(settings, CsvData):
            source = read_table(path, settings)
        elif isinstance(settings, ParquetData):
            from litelambda.data.parquet_tables import read_parquet

            source = read_parquet(path, settings)
        elif isinstance(settings, TextData):
            source = read_texts(path, settings, folder)
        else:
            source = read_images(path, settings)
        _check("training", source.train, path)
        for name, split in (("validation", source.validation), ("test", source.test)):
            if split is not None:
                _check(name, split, path)
                _check_alike(name, split, source.train, path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return source


def _check(name: str, split: Split, path: Path) -> None:
    if not split.y.ndim:
        raise DataError(f"{path}: the labels of the {name} split are a single value, expected one per row")
    if len(split.x) != len(split.y):
        raise DataError(f"{path}: the {name} split has {len(split.x)} rows but {len(split.y)} labels")
    if not len(split):
        raise DataError(f"{path}: the {name} split has no rows")
    if split.x.dtype.kind not in "buif":
        raise DataError(f"{path}: the {name} rows are of type {split.x.dtype}, expected numbers")
    if split.x.dtype.kind != "f":
        return
    row = 0
    for part in chunks(split.x):
        bad = ~np.isfinite(part).reshape(len(part), -1).all(axis=1)
        if bad.any():
            raise DataError(f"{path}: row {row + int(bad.argmax())} of the {name} split holds NaN or infinity")
        row += len(part)


def _check_alike(name: str, split: Split, train: Split, path: Path) -> None:
    """Refuse a split whose rows or labels differ in shape or kind from those of the training rows."""
    row, expected = list(split.x.shape[1:]), list(train.x.shape[1:])
    if row != expected:
        raise DataError(f"{path}: the {name} split has rows of {row}, the training split of {expected}")
    values = [("rows", split.x.dtype, train.x.dtype)]
    if not (_is_whole(split.y) and _is_whole(train.y)):  # 1.0 and 1 are the same class
        values.append(("labels", split.y.dtype, train.y.dtype))
    for what, found, known in values:
        if _nature(found) != _nature(known):
            raise DataError(
                f"{path}: the {what} of the {name} split are of type {found}, those of the training split of "
                f"{known}: save both in the same units and type"
            )
    widths = [y.shape[1:] for y in (split.y, train.y)]
    if widths[0] != widths[1] and all(np.prod(width) > 1 for width in widths):
        raise DataError(
            f"{path}: the labels of the {name} split are rows of {list(widths[0])}, those of the training split of "
            f"{list(widths[1])}"
        )


def _is_whole(labels: np.ndarray[Any, Any]) -> bool:
    return labels.dtype.kind in "buif" and bool((labels == np.floor(labels)).all())


def _nature(dtype: np.dtype[Any]) -> str:
    """Kinds of values that are comparable: integers, floats, text."""
    return {"b": "integer", "u": "integer", "i": "integer", "S": "text", "U": "text"}.get(dtype.kind, dtype.kind)
