"""Targets: labels become class numbers, and numbers are checked."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.data.stored_rows import RawDataset, Split


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


def encode_label_sets(source: RawDataset, names: list[str] | None) -> tuple[RawDataset, list[str]]:
    """Turn sets of labels into float32 rows of 0 and 1.

    Args:
        source: texts such as "red|round", each the labels of a row, or rows of 0 and 1.
        names: the labels in order, where they are known.

    Raises:
        DataError: a label is not among them, or a row is neither text nor 0 and 1.
    """
    y = source.train.y
    if y.dtype.kind in "US":
        known = names or sorted({name for text in y.astype(str) for name in _label_set(text)})
        places = {name: place for place, name in enumerate(known)}
        return source.map(lambda split: Split(split.x, _marked(split.y.astype(str), places))), known
    known = names or [str(number) for number in range(y.shape[1] if y.ndim == 2 else 1)]

    def check(split: Split) -> Split:
        if split.y.ndim != 2 or split.y.dtype.kind not in "buif" or not np.isin(split.y, (0, 1)).all():
            raise DataError(
                f"labels are {split.y.dtype} of shape {list(split.y.shape)}; expected for each row 0 or 1 by label, or "
                "a text such as 'a|b'"
            )
        if split.y.shape[1] != len(known):
            raise DataError(f"rows have {split.y.shape[1]} labels, data.labels has {len(known)}: {', '.join(known)}")
        return Split(split.x, split.y.astype(np.float32))

    return source.map(check), known


def _label_set(text: str) -> list[str]:
    return [name for part in text.split("|") if (name := part.strip())]


def _marked(texts: NDArray[Any], places: dict[str, int]) -> NDArray[np.float32]:
    marked = np.zeros((len(texts), len(places)), np.float32)
    for row, text in enumerate(texts):
        for name in _label_set(text):
            if name not in places:
                raise DataError(f"label {name!r} is not among the labels {', '.join([*places][:20])}")
            marked[row, places[name]] = 1
    return marked


def check_label_sets(train: Split, labels: list[str], path: str) -> None:
    """Refuse labels that no training row has, or all have.

    Raises:
        DataError: there are some.
    """
    shares = train.y.mean(axis=0)
    constant = [name for name, share in zip(labels, shares, strict=True) if share in (0, 1)]
    if constant:
        raise DataError(
            f"{path}: all training rows agree on label {', '.join(map(repr, constant[:5]))}: leave it out, or split "
            "the data again"
        )


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


def regression_targets(split: Split) -> Split:
    """Targets as float32 (rows, targets).

    Raises:
        DataError: they are not finite numbers, one or several per row.
    """
    y = split.y
    if y.dtype.kind not in "buif" or y.ndim not in (1, 2):
        raise DataError(f"targets are {y.dtype} of shape {list(y.shape)}; expected one or more numbers per row")
    if not np.isfinite(y).all():
        raise DataError(f"target {int(np.argwhere(~np.isfinite(y))[0][0])} is NaN or infinite")
    return Split(split.x, y.astype(np.float32).reshape(len(y), -1))


def check_widths(source: RawDataset, path: str) -> None:
    """Refuse splits whose number of targets differs from that of the training rows.

    Raises:
        DataError: there is one.
    """
    expected = source.train.y.shape[1]
    for name, split in (("validation", source.validation), ("test", source.test)):
        if split is not None and split.y.shape[1] != expected:
            raise DataError(f"{path}: the {name} rows have {split.y.shape[1]} targets, training rows have {expected}")


def check_classes(train: Split, test: Split | None, labels: list[str], path: str) -> None:
    """Refuse training rows of a single class, and test rows of classes that no training row has.

    Raises:
        DataError: there are some.
    """
    known = np.unique(train.y)
    if len(known) < 2:
        raise DataError(f"{path}: all training rows are of class {labels[int(train.y[0])]!r}")
    unseen = [] if test is None else [labels[number] for number in np.setdiff1d(test.y, known)]
    if unseen:
        raise DataError(
            f"{path}: the test split has rows of class {', '.join(map(repr, unseen[:5]))}"
            f"{', …' if len(unseen) > 5 else ''}, which no training row has: split the data again"
        )
