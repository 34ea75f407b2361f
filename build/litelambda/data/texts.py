"""Reads texts and their labels: CSV with a header line, JSON Lines, or class-named folders of .txt files.

The texts are in memory; rows of token numbers are made of them when the tokenizer is known.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from litelambda.common.errors import DataError
from litelambda.data.raw_form import Columns, RawForm, row_numbers
from litelambda.data.stored_rows import Indices, RawDataset, Split, needs_streaming
from litelambda.data.text_form import fit_form
from litelambda.recipe.sections import TextData

_LINE_SUFFIXES = (".jsonl", ".ndjson", ".json")
_DELIMITERS = ",;\t|"


class _Row(NamedTuple):
    text: Any
    label: Any
    place: str


@dataclass(frozen=True)
class _Texts:
    """The texts of a data set; see `RawSource`."""

    rows: list[_Row]
    settings: TextData
    folder: Path

    def __len__(self) -> int:
        return len(self.rows)

    def read(self, numbers: Indices) -> Columns:
        """See `RawSource.read`."""
        return {self.settings.text: [self.rows[number].text for number in numbers]}

    def fit(self, numbers: Indices) -> RawForm:
        """See `RawSource.fit`."""
        return fit_form(self.settings, self.folder, self.read(numbers)[self.settings.text])

    def place(self, number: int) -> str:
        """See `RawSource.place`."""
        return self.rows[number].place


def read_texts(path: Path, settings: TextData, folder: Path) -> RawDataset:
    """Read texts and labels.

    Args:
        path: a file, or a folder of them.
        settings: the recipe's `data`.
        folder: the recipe's, which the tokenizer's path is relative to.

    Raises:
        DataError: the files are not of a known form, not UTF-8, or a row lacks its text or its label.
        OSError: a file cannot be read.
    """
    parts = _parts(path, settings)
    rows = [row for part in parts.values() for row in part]
    texts = _Texts(rows, settings, folder)
    numbers, labels = row_numbers(texts), _labels(rows)
    splits, start = {}, 0
    for name, part in parts.items():
        wanted = np.arange(start, start + len(part))
        splits[name] = Split(numbers.take(wanted), labels[wanted])
        start += len(part)
    num_bytes = 4 * settings.length * len(rows)
    streamed = needs_streaming(num_bytes) if settings.streaming is None else settings.streaming
    return RawDataset(splits["train"], splits.get("validation"), splits.get("test"), streamed, texts)


def _labels(rows: list[_Row]) -> np.ndarray[Any, Any]:
    return np.array([row.label for row in rows])


def _parts(path: Path, settings: TextData) -> dict[str, list[_Row]]:
    """The rows by split, "train" among them."""
    if path.is_file():
        return {"train": list(_read_file(path, settings))}
    named = {
        name: found[0]
        for name in ("train", "validation", "test")
        if (found := sorted(each for each in path.iterdir() if name in (each.stem, each.name)))
    }
    sources = named if "train" in named else {"train": path}
    return {
        name: list(_read_file(each, settings) if each.is_file() else _read_folder(each))
        for name, each in sources.items()
    }


def _read_folder(folder: Path) -> Iterator[_Row]:
    files = sorted(each for each in folder.glob("*/**/*.txt") if not each.name.startswith("."))
    if not files:
        raise DataError(f"{folder} has no .txt files in class-named folders")
    for file in files:
        yield _Row(_read_text(file), file.relative_to(folder).parts[0], str(file))


def _read_text(file: Path) -> str:
    try:
        return file.read_bytes().decode("utf-8-sig")  # line ends stay as they are, as where the text is served
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not text in UTF-8: {error}: save it as UTF-8") from error


def _read_file(path: Path, settings: TextData) -> Iterator[_Row]:
    lines = path.suffix.lower() in _LINE_SUFFIXES
    return (_json_rows if lines else _csv_rows)(path, _read_text(path), settings)


def _json_rows(path: Path, content: str, settings: TextData) -> Iterator[_Row]:
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        place = f"{path}, line {number}"
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{place}: not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise DataError(f"{place}: expected an object with {settings.text!r} and {settings.label!r}")
        yield _checked_row(place, fields.get(settings.text), fields.get(settings.label), settings)


def _csv_rows(path: Path, content: str, settings: TextData) -> Iterator[_Row]:
    if not content.strip():
        raise DataError(f"{path} is empty: expected a header line with {settings.text!r} and {settings.label!r}")
    wanted = {settings.text, settings.label}
    lines = io.StringIO(content, newline="")
    header_line = next(lines)
    headers = {delimiter: next(csv.reader([header_line], delimiter=delimiter)) for delimiter in _DELIMITERS}
    delimiter = next((each for each, names in headers.items() if wanted <= {*names}), None)
    if delimiter is None:
        raise DataError(
            f"{path} has no columns {settings.text!r} and {settings.label!r} (data.text, data.label); its header is "
            f"{header_line[:200]!r}"
        )
    header = headers[delimiter]
    if len({*header}) < len(header):
        raise DataError(f"{path}: the header names a column twice")
    text, label = header.index(settings.text), header.index(settings.label)
    reader = csv.reader(lines, delimiter=delimiter, strict=True)
    number = 2
    try:
        for cells in reader:
            if cells:
                place = f"{path}, line {number}"
                if len(cells) != len(header):
                    raise DataError(f"{place}: {len(cells)} cells, the header has {len(header)}")
                yield _checked_row(place, cells[text], cells[label], settings)
            number = reader.line_num + 2
    except csv.Error as error:
        raise DataError(f"{path}, line {number}: not CSV: {error}; JSON Lines hold any text") from error


def _checked_row(place: str, text: Any, label: Any, settings: TextData) -> _Row:
    if not isinstance(text, str):
        raise DataError(f"{place}: {settings.text!r} is {type(text).__name__}, expected a text")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise DataError(f"{place}: {settings.text!r} has half of a surrogate pair at {error.start}: not text") from None
    if isinstance(label, bool) or not isinstance(label, str | int | float) or label == "":
        raise DataError(f"{place}: {settings.label!r} has no value, or one that is neither text nor a number")
    if isinstance(label, str):
        label = label.strip()
    if settings.task == "regression":
        try:
            label = float(label)
        except ValueError as error:
            raise DataError(f"{place}: {settings.label!r} is not a number: {str(label)[:40]!r}") from error
    return _Row(text, label, place)
