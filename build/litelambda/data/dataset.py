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
from litelambda.data.image_folders import Pictures
from litelambda.data.raw_form import Columns, RawForm, prepared
from litelambda.data.readers import read_source
from litelambda.data.scaling import Preprocessing, fit_scaling
from litelambda.data.stored_rows import Indices, RawDataset, Rows, Split, StoredRows, in_file
from litelambda.data.targets import (
    check_classes,
    check_label_sets,
    check_widths,
    encode_label_sets,
    encode_labels,
    regression_targets,
)
from litelambda.recipe.sections import Data, InteractionsData


@dataclass(frozen=True)
class Dataset:
    """The data of a build.

    Attributes:
        train: rows to train on, as the model reads them, and their targets: int32 class numbers, or float32 values
            (rows, outputs), which are 0 and 1 where a row can have several labels.
        validation: rows to validate on; None where the recipe has `validation_split = 0`.
        test: rows for evaluation only.
        labels: names of the classes by number; None for regression.
        num_outputs: classes, or values to predict.
        preprocessing: how the rows were prepared; None where they were not.
        raw_test: the raw values of the test rows by field, for those indices; None where they follow from the rows.
        target_scaling: how the targets of training and validation rows were standardized; None where they were not. The
            targets of the test rows are always in their original units.
        notes: what people should know of how the data set was read.
        source_shape: of a row as it was found, before `data.reshape`.

    The rows of a split are an array where they are in memory, else `StoredRows`.
    """

    train: Split
    validation: Split | None
    test: Split
    labels: list[str] | None
    num_outputs: int
    preprocessing: Preprocessing | RawForm | None
    target_scaling: Preprocessing | None = None
    raw_test: Callable[[Indices], Columns] | None = None
    notes: tuple[str, ...] = ()
    source_shape: tuple[int, ...] = ()

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one row."""
        return self.train.x.shape[1:]

    @property
    def multi_label(self) -> bool:
        """Whether a row can have any number of the labels at once."""
        return self.labels is not None and self.train.y.ndim == 2

    def describe(self) -> str:
        """The numbers and the shape of the rows, for people."""
        place = ", read from disk" if self.streamed else ""
        rows = f"{len(self.train):,} training and {counted(len(self.test), 'test row')}"
        return "; ".join([f"{rows} of {list(self.input_shape)}{place}", *self.notes])

    def representative(self, num_samples: int, seed: int) -> NDArray[Any]:
        """Seeded sample of the training rows."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        rows: NDArray[Any] = self.train.x[np.sort(order[:num_samples])]
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
    if isinstance(settings, InteractionsData):
        raise DataError("data.format = 'interactions' has no rows with targets: it is for recommendations")
    source = read_source(settings, folder)
    labels = None
    if settings.task == "classification":
        source, labels = encode_labels(source, settings.labels)
    elif settings.task == "multi_label":
        columns = getattr(settings, "label", None)
        names = settings.labels or (columns if isinstance(columns, list) else None)
        source, labels = encode_label_sets(source, names)
        check_widths(source, settings.path)
    else:
        source = source.map(regression_targets)
        check_widths(source, settings.path)
    train, validation, test = _cut(source, settings.test_split, settings.validation_split, settings.seed)
    if settings.task == "multi_label":
        check_label_sets(train, labels or [], settings.path)
    elif labels is not None:
        check_classes(train, source.test, labels, settings.path)
    scaling = _standardization(train.y) if settings.targets == "standardize" else None
    if scaling is not None:
        train = Split(train.x, scaling.apply(train.y))
        validation = Split(validation.x, scaling.apply(validation.y)) if validation else None
    if source.raw is not None:
        return _prepared(source, (train, validation, test), labels, scaling)
    shape = settings.reshape
    train, test = _reshape(train, shape), _reshape(test, shape)
    validation = _reshape(validation, shape) if validation else None
    per_column = len(source.train.x.shape) == 2 and shape is None and settings.normalize == "standardize"
    preprocessing = fit_scaling(settings.normalize, train.x, per_column=per_column)
    streamed = source.streamed
    return Dataset(
        _normalize(train, preprocessing, streamed=streamed),
        _normalize(validation, preprocessing, streamed=streamed) if validation else None,
        _normalize(test, preprocessing, streamed=streamed),
        labels,
        len(labels) if labels is not None else train.y.shape[1],
        preprocessing,
        scaling,
        source_shape=source.train.x.shape[1:],
    )


def _prepared(
    source: RawDataset,
    splits: tuple[Split, Split | None, Split],
    labels: list[str] | None,
    scaling: Preprocessing | None,
) -> Dataset:
    """A data set whose rows are row numbers so far: what they become is fitted on the training rows."""
    train, validation, test = splits
    form = source.raw.fit(train.x[:])

    def rows(split: Split) -> Split:
        if isinstance(source.raw, Pictures):
            found = source.raw.prepared(_stored(split.x), form)
            return Split(found if source.streamed else found[:], split.y)
        found = prepared(_stored(split.x), source.raw, form)
        return Split(in_file(found) if source.streamed else found[:], split.y)

    return Dataset(
        rows(train),
        rows(validation) if validation else None,
        rows(test),
        labels,
        len(labels) if labels is not None else train.y.shape[1],
        form,
        scaling,
        lambda wanted: source.raw.read(test.x[wanted]),
        source.notes,
    )


def _standardization(y: NDArray[Any]) -> Preprocessing:
    """The scaling that gives every column of targets mean 0 and standard deviation 1."""
    width = y.std(axis=0, dtype=np.float64)
    scale = 1.0 / np.where(width == 0, 1.0, width)
    return Preprocessing(scale.tolist(), (-y.mean(axis=0, dtype=np.float64) * scale).tolist())


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


def _normalize(split: Split, preprocessing: Preprocessing | None, *, streamed: bool) -> Split:
    """Normalize rows, and read them into memory unless they are streamed."""
    change = preprocessing.apply if preprocessing else lambda part: part.astype(np.float32)
    rows = _stored(split.x).map(change, np.float32)
    return Split(rows if streamed else rows[:], split.y)
