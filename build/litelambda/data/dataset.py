"""Data: a data set on disk becomes splits to train and evaluate a model on.

Labels are encoded as class numbers, rows reshaped and normalized, missing splits made with the recipe's seed. The
representative rows for quantization and the validation split come from the training rows; the test split is for
evaluation only. Rows that stay on disk go through the same steps when they are read.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.common.wording import counted
from litelambda.data.readers import read_source
from litelambda.data.stored_rows import RawDataset, Rows, Split, StoredRows, chunks
from litelambda.recipe.sections import Data, Scaling, resolve_path


@dataclass(frozen=True)
class Preprocessing:
    """How rows are normalized: model value = raw value x scale + offset, per column where these are lists.

    Example:
        >>> Preprocessing(scale=0.5, offset=1.0).apply(np.array([0, 4])).tolist()
        [1.0, 3.0]
        >>> Preprocessing(scale=0.5, offset=1.0).undo(np.array([1.0, 3.0])).tolist()
        [0.0, 4.0]
    """

    scale: float | list[float]
    offset: float | list[float]

    def apply(self, x: NDArray[Any]) -> NDArray[np.float32]:
        """Turn raw values into the model's values."""
        scaled: NDArray[np.float32] = x.astype(np.float32) * np.asarray(self.scale, np.float32)
        scaled += np.asarray(self.offset, np.float32)
        return scaled

    def undo(self, x: NDArray[Any]) -> NDArray[np.float64]:
        """Turn the model's values into raw values: the inverse of `apply`."""
        raw: NDArray[np.float64] = (x - np.asarray(self.offset)) / np.asarray(self.scale)
        return raw

    def to_json(self) -> dict[str, Any]:
        """The manifest's `preprocessing` of one input."""
        return {"kind": "numbers", "scale": self.scale, "offset": self.offset}


@dataclass(frozen=True)
class Dataset:
    """The data of a build.

    Attributes:
        train: rows to train on, float32, and their targets: int32 class numbers or float32 values (rows, outputs).
        validation: rows to validate on; None where the recipe has `validation_split = 0`.
        test: rows for evaluation only.
        labels: names of the classes by number; None for regression.
        num_outputs: classes, or values to predict.
        preprocessing: how the rows were normalized; None where they were not.
        target_scaling: how the targets of training and validation rows were standardized; None where they were not. The
            targets of the test rows are always in their original units.

    The rows of a split are an array where they are in memory, else `StoredRows`.
    """

    train: Split
    validation: Split | None
    test: Split
    labels: list[str] | None
    num_outputs: int
    preprocessing: Preprocessing | None
    target_scaling: Preprocessing | None = None

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.train.x.shape[1:]

    def describe(self) -> str:
        """The numbers and the shape of the rows, for people."""
        place = ", read from disk" if self.streamed else ""
        return (
            f"{len(self.train):,} training and {counted(len(self.test), 'test row')} of {list(self.input_shape)}{place}"
        )

    def representative(self, num_samples: int, seed: int) -> NDArray[np.float32]:
        """Seeded sample of the training rows."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        rows: NDArray[np.float32] = self.train.x[np.sort(order[:num_samples])]
        return rows

    @property
    def streamed(self) -> bool:
        """Whether the rows stay on disk."""
        return isinstance(self.train.x, StoredRows)


def load_data(settings: Data, folder: Path) -> Dataset:
    """Read, encode, split, reshape and normalize a recipe's data.

    Args:
        settings: the recipe's `data`.
        folder: the recipe's folder, which its path is relative to.

    Raises:
        DataError: the data set is missing, unreadable, or does not fit what the recipe says of it.
    """
    source = read_source(settings, resolve_path(settings.path, folder))
    labels = None
    if settings.task == "classification":
        source, labels = encode_labels(source, settings.labels)
    else:
        source = source.map(_regression_targets)
        _check_widths(source, settings.path)
    train, validation, test = _cut(source, settings.test_split, settings.validation_split, settings.seed)
    if labels is not None:
        _check_classes(train, source.test, labels, settings.path)
    scaling = _standardization(train.y) if settings.targets == "standardize" else None
    if scaling is not None:
        train = Split(train.x, scaling.apply(train.y))
        validation = Split(validation.x, scaling.apply(validation.y)) if validation else None
    shape = settings.reshape
    train, test = _reshape(train, shape), _reshape(test, shape)
    validation = _reshape(validation, shape) if validation else None
    per_column = settings.format == "csv" and shape is None
    preprocessing = _preprocessing(settings.normalize, train.x, per_column=per_column)
    streamed = source.streamed
    return Dataset(
        _normalize(train, preprocessing, streamed=streamed),
        _normalize(validation, preprocessing, streamed=streamed) if validation else None,
        _normalize(test, preprocessing, streamed=streamed),
        labels,
        len(labels) if labels is not None else train.y.shape[1],
        preprocessing,
        scaling,
    )


def _check_classes(train: Split, test: Split | None, labels: list[str], path: str) -> None:
    """Refuse training rows of a single class, and test rows of classes that no training row has."""
    known = np.unique(train.y)
    if len(known) < 2:
        raise DataError(f"{path}: all training rows are of class {labels[int(train.y[0])]!r}")
    unseen = [] if test is None else [labels[number] for number in np.setdiff1d(test.y, known)]
    if unseen:
        raise DataError(
            f"{path}: the test split has rows of class {', '.join(map(repr, unseen[:5]))}"
            f"{', …' if len(unseen) > 5 else ''}, which no training row has: split the data again"
        )


def _standardization(y: NDArray[Any]) -> Preprocessing:
    """The scaling that gives every column of targets mean 0 and standard deviation 1."""
    width = y.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(width == 0, 1.0, width)
    return Preprocessing(scale.tolist(), (-y.mean(axis=0, dtype=np.float64) * scale).tolist())


def encode_labels(source: RawDataset, names: list[str] | None) -> tuple[RawDataset, list[str]]:
    """Turn labels into class numbers.

    Args:
        source: labels as integers, strings, or one-hot rows.
        names: the classes in order, where the recipe lists them; integer labels are then indices into them.

    Raises:
        DataError: a label is not among the classes, or the labels are real numbers.
    """
    source = source.map(lambda split: Split(split.x, _plain_labels(split.y)))
    values = np.unique(source.train.y)
    if values.dtype.kind == "U" and np.char.isdecimal(values).all():
        values = values[np.argsort(values.astype(np.int64))]  # class "10" comes after class "9"
    if names is not None and values.dtype.kind == "i":
        values = np.arange(len(names))
    elif names is not None:
        values = np.array(names)

    def encode(split: Split) -> Split:
        order = np.argsort(values)
        found = order[np.minimum(np.searchsorted(values, split.y, sorter=order), len(values) - 1)]
        unknown = np.unique(split.y[values[found] != split.y])
        if len(unknown):
            listed = ", ".join(map(str, unknown[:5]))
            classes = ", ".join(map(str, names or values[:20]))
            raise DataError(f"labels {listed} are not among the classes {classes}")
        return Split(split.x, found.astype(np.int32))

    return source.map(encode), names or [str(value) for value in values]


def _plain_labels(y: NDArray[Any]) -> NDArray[Any]:
    """Labels as a vector of integers or strings."""
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all():
        y = y.argmax(axis=1)
    if y.ndim != 1:
        raise DataError(f"labels have shape {list(y.shape)}; expected one class per row, or one-hot rows")
    if y.dtype.kind == "f" and not (whole := np.isfinite(y) & (y == np.round(y))).all():
        raise DataError(
            f"labels such as {y[~whole][0]} are not classes: use integers or strings, or data.task = 'regression'"
        )
    if y.dtype.kind in "US":
        return y.astype(str)
    if y.dtype.kind not in "buif":
        raise DataError(f"labels are of type {y.dtype}; expected integers or strings")
    return y.astype(np.int64)


def _regression_targets(split: Split) -> Split:
    y = split.y
    if y.dtype.kind not in "buif" or y.ndim not in (1, 2):
        raise DataError(f"targets are {y.dtype} of shape {list(y.shape)}; expected one or more numbers per row")
    if not np.isfinite(y).all():
        raise DataError(f"target {int(np.argwhere(~np.isfinite(y))[0][0])} is NaN or infinite")
    return Split(split.x, y.astype(np.float32).reshape(len(y), -1))


def _check_widths(source: RawDataset, path: str) -> None:
    """Refuse splits whose number of targets differs from that of the training rows."""
    expected = source.train.y.shape[1]
    for name, split in (("validation", source.validation), ("test", source.test)):
        if split is not None and split.y.shape[1] != expected:
            raise DataError(f"{path}: the {name} rows have {split.y.shape[1]} targets, training rows have {expected}")


def _cut(
    source: RawDataset, test_share: float, validation_share: float, seed: int
) -> tuple[Split, Split | None, Split]:
    """Take the splits that the source lacks from its training rows, at random with the seed."""
    order = np.random.default_rng(seed).permutation(len(source.train))
    test, validation = source.test, source.validation
    if test is None:
        cut = _share(len(order), test_share, "data.test_split")
        test, order = source.train.take(order[:cut]), order[cut:]
    if validation is None and validation_share:
        cut = _share(len(order), validation_share, "data.validation_split")
        validation, order = source.train.take(order[:cut]), order[cut:]
    return source.train.take(np.sort(order)), validation, test


def _stored(rows: Rows) -> StoredRows:
    return rows if isinstance(rows, StoredRows) else StoredRows.of(rows[:])


def _share(num_rows: int, share: float, key: str) -> int:
    cut = round(num_rows * share)
    if not 0 < cut < num_rows:
        raise DataError(f"{key} = {share} of {num_rows} rows is {cut} rows, and neither part may be empty: change it")
    return cut


def _reshape(split: Split, shape: list[int] | None) -> Split:
    if shape is None:
        return split
    row = split.x.shape[1:]
    if math.prod(row) != math.prod(shape):
        raise DataError(
            f"data.reshape = {shape} has {math.prod(shape)} values, but rows of the data have shape {list(row)}"
        )
    return Split(_stored(split.x).with_row_shape(tuple(shape)), split.y)


def _preprocessing(rule: str | Scaling, x: Rows, *, per_column: bool) -> Preprocessing | None:
    """Compute the numbers of the recipe's rule from the training rows."""
    if isinstance(rule, Scaling):
        return Preprocessing(rule.scale, rule.offset)
    if rule == "none":
        return None
    axis = 0 if per_column else None
    if rule == "standardize":
        center = _mean(x, lambda part: part, axis)
        width = np.sqrt(_mean(x, lambda part: np.square(part - center), axis))
    elif x.dtype in (np.uint8, np.uint16):  # pixels: 255 is white, even if no training row has it
        center, width = np.float64(0), np.float64(np.iinfo(x.dtype).max)
    else:
        ends = [(part.min(axis=axis), part.max(axis=axis)) for part in chunks(x)]
        center = np.min([low for low, _ in ends], axis=0).astype(np.float64)
        width = np.max([high for _, high in ends], axis=0) - center
    scale = 1.0 / np.where(width == 0, 1.0, width)  # a constant column stays constant
    return Preprocessing(scale.tolist(), (-center * scale + 0.0).tolist())


def _mean(x: Rows, function: Callable[[NDArray[Any]], NDArray[Any]], axis: int | None) -> Any:
    """Mean of a function of all values, in float64; bit for bit the same in memory and on disk."""
    total = sum(function(part.astype(np.float64)).sum(axis=axis) for part in chunks(x))
    return total / (len(x) if axis == 0 else math.prod(x.shape))


def _normalize(split: Split, preprocessing: Preprocessing | None, *, streamed: bool) -> Split:
    """Normalize rows, and read them into memory unless they are streamed."""
    change = preprocessing.apply if preprocessing else lambda part: part.astype(np.float32)
    rows = _stored(split.x).map(change, np.float32)
    return Split(rows if streamed else rows[:], split.y)
