"""Interactions: who chose which item, from a CSV file, as rows of category numbers for the two sides of a recommender.

The user's side is prepared as requests are (`litelambda_serving.preprocessing.table`). The item's side is a catalogue,
a row for each item, which the published model holds.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.errors import DataError
from litelambda.common.wording import counted
from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import Columns, RawForm, prepared, row_numbers
from litelambda.data.stored_rows import Indices, Split
from litelambda.recipe.sections import InteractionsData, resolve_path
from litelambda_serving.preprocessing.table import category_of

ITEMS_FILE = "items.json"
"""The asset with the names of the catalogue's items by number."""

_MAX_IN_MANIFEST = 100  # names; larger vocabularies are files of their own
_UNKNOWN_SHARE = 0.02  # of training rows, for each column: what is learned of users that are not known


@dataclass(frozen=True)
class Interactions:
    """The data of a recommender.

    Attributes:
        users: a row of the user's side for each interaction, and the item's number.
        pairs: for training: the same followed by the item's row.
        user_sizes: how many categories each column of the user's side has.
        item_sizes: the same of the item's side.
        item_rows: the catalogue, (items, columns).
        item_names: its names, by number.
    """

    users: Dataset
    pairs: Dataset
    user_sizes: list[int]
    item_sizes: list[int]
    item_rows: NDArray[np.int32]
    item_names: list[str]

    def describe(self) -> str:
        """The numbers of interactions and items, for people."""
        return (
            f"{len(self.users.train):,} training and {counted(len(self.users.test), 'test interaction')} "
            f"with {counted(len(self.item_names), 'item')}"
        )


@dataclass(frozen=True)
class _Lines:
    """The wanted interactions of a file: a `RawSource` of the user's side.

    Attributes:
        path: of the file.
        columns: by name, the text of each line; None for a missing one.
        numbers: of the lines.
        names: the columns of the user's side.
    """

    path: Path
    columns: Mapping[str, list[str | None]]
    numbers: list[int]
    names: Sequence[str]

    def __len__(self) -> int:
        return len(self.numbers)

    def read(self, numbers: Indices) -> Columns:
        """See `RawSource.read`."""
        return {name: [self.columns[name][number] for number in numbers] for name in self.names}

    def fit(self, numbers: Indices) -> RawForm:
        """See `RawSource.fit`."""
        columns, assets = [], {}
        for place, name in enumerate(self.names):
            texts = self.columns[name]
            vocabulary = sorted({text for number in numbers if (text := texts[number]) is not None})
            if not vocabulary:
                raise DataError(f"{self.path}: column {name!r} has no value in any training interaction")
            held: dict[str, Any] = {"vocabulary": vocabulary}
            if len(vocabulary) > _MAX_IN_MANIFEST:
                file = f"vocabulary_{place}.json"
                assets[file] = json.dumps(vocabulary, ensure_ascii=False).encode()
                held = {"vocabulary_file": file}
            columns.append(
                {"name": name, "type": "category", **held, "encoding": "index", "unknown": "other", "missing": ""}
            )
        document = {"kind": "table", "columns": columns, "label": sorted(self.columns.keys() - {*self.names})}
        return RawForm(document, (len(columns),), "int32", assets)

    def place(self, number: int) -> str:
        """See `RawSource.place`."""
        return f"{self.path}, line {self.numbers[number]}"


def load_interactions(settings: InteractionsData, folder: Path) -> Interactions:
    """Read a recipe's interactions, split them and number their categories.

    Args:
        settings: the recipe's `data`.
        folder: the recipe's folder, which its path is relative to.

    Raises:
        DataError: the file is missing or unreadable, lacks a column, or contradicts itself.
    """
    path = resolve_path(settings.path, folder)
    if not path.is_file():
        raise DataError(f"there is no data set at {path} (data.path = {settings.path!r})")
    lines = _read(path, settings)
    names, items = _numbered(lines, settings.item)
    item_rows, item_sizes = _catalogue(lines, settings, names, items)
    order = np.random.default_rng(settings.seed).permutation(len(lines))
    num_test = _share(len(order), settings.test_split, "data.test_split")
    rest = len(order) - num_test
    num_validation = (
        _share(rest, settings.validation_split, "data.validation_split") if settings.validation_split else 0
    )
    test, validation, train = np.split(order, [num_test, num_test + num_validation])
    form = lines.fit(train)
    rows = prepared(row_numbers(lines), lines, form)[:]
    sizes = [
        len(each["vocabulary"] if "vocabulary" in each else json.loads(form.assets[each["vocabulary_file"]])) + 1
        for each in form.document["columns"]
    ]
    noisy = _with_unknown(rows, sizes, settings.seed)
    pairs = np.concatenate([noisy, item_rows[items]], axis=1)

    def dataset(x: NDArray[Any]) -> Dataset:
        splits = [Split(x[part], items[part]) for part in (train, validation, test)]
        held = splits[1] if num_validation else None
        raw = lines.read
        return Dataset(splits[0], held, splits[2], None, len(names), form, None, lambda wanted: raw(test[wanted]))

    return Interactions(dataset(rows), dataset(pairs), sizes, item_sizes, item_rows, names)


def _read(path: Path, settings: InteractionsData) -> _Lines:
    """The interactions that were wanted."""
    wanted = [*settings.user, settings.item, *settings.item_features]
    columns: dict[str, list[str | None]] = {name: [] for name in wanted}
    numbers = []
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = csv.DictReader(file, restkey="", restval=None)
            header = lines.fieldnames or []
            needed = [*wanted, *([settings.label] if settings.label else [])]
            if missing := [name for name in needed if name not in header]:
                raise DataError(f"{path} has no column {', '.join(missing)}; it has {', '.join(header) or 'none'}")
            for line in lines:
                if "" in line or None in line.values():
                    raise DataError(f"{path}, line {lines.line_num}: expected {len(header)} fields, as the header has")
                if settings.label and not _is_wanted(line[settings.label], settings, f"{path}, line {lines.line_num}"):
                    continue
                for name in wanted:
                    columns[name].append(category_of(line[name]))
                numbers.append(lines.line_num)
    except (csv.Error, UnicodeDecodeError) as error:
        raise DataError(f"{path} is not a CSV file: {error}") from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    if not numbers:
        raise DataError(f"{path} has no interaction that was wanted: check data.label and data.positive_from")
    return _Lines(path, columns, numbers, settings.user)


def _is_wanted(text: str, settings: InteractionsData, place: str) -> bool:
    try:
        return float(text) >= settings.positive_from
    except ValueError:
        raise DataError(f"{place}: {text!r} in column {settings.label!r} is not a number") from None


def _numbered(lines: _Lines, column: str) -> tuple[list[str], NDArray[np.int32]]:
    """The names in a column, in order, and the number of each line's.

    Raises:
        DataError: a line has none.
    """
    texts = [text or "" for text in lines.columns[column]]
    if "" in texts:
        raise DataError(f"{lines.place(texts.index(''))}: column {column!r} is empty, expected a name")
    names = sorted({*texts})
    places = {name: number for number, name in enumerate(names)}
    return names, np.array([places[text] for text in texts], np.int32)


def _catalogue(
    lines: _Lines, settings: InteractionsData, names: list[str], items: NDArray[np.int32]
) -> tuple[NDArray[np.int32], list[int]]:
    """A row of category numbers for each item, its own number first, and how many categories each column has.

    Raises:
        DataError: an item has two values of a feature.
    """
    rows, sizes = [np.arange(len(names), dtype=np.int32)], [len(names)]
    for feature in settings.item_features:
        values, numbers = _numbered(lines, feature)
        column = np.zeros(len(names), np.int32)
        column[items] = numbers
        if (column[items] != numbers).any():
            line = int((column[items] != numbers).argmax())
            raise DataError(
                f"{lines.place(line)}: item {names[items[line]]!r} has the {feature} {values[numbers[line]]!r}, and "
                f"{values[column[items[line]]]!r} in another line: expected the same in all of its lines"
            )
        rows.append(column)
        sizes.append(len(values))
    return np.stack(rows, axis=1), sizes


def _share(num_rows: int, share: float, key: str) -> int:
    cut = round(num_rows * share)
    if not 0 < cut < num_rows:
        raise DataError(
            f"{key} = {share} of {num_rows} interactions is {cut}, and neither part may be empty: change it"
        )
    return cut


def _with_unknown(rows: NDArray[Any], sizes: list[int], seed: int) -> NDArray[Any]:
    """The rows with some categories made unknown, so that something is learned of users that are."""
    unknown = np.random.default_rng(seed).random(rows.shape) < _UNKNOWN_SHARE
    return np.where(unknown, np.array(sizes, np.int32) - 1, rows)
