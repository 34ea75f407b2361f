"""What a data set is, from the way it lies on disk, and the recipe that learns from it.

Each format is read by its reader of `litelambda.data`; here is only what a recipe has to say of it.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import TypeAdapter

from litelambda.common.errors import DataError, UsageError
from litelambda.common.extras import require_extra
from litelambda.common.wording import counted
from litelambda.data.csv_tables import CsvFile
from litelambda.data.dataset import Dataset, load_data
from litelambda.data.image_folders import find_images
from litelambda.data.interactions import load_interactions
from litelambda.data.npz import read_array_files
from litelambda.data.stored_rows import RawDataset
from litelambda.data.texts import read_texts
from litelambda.keras_tools.model_files import KERAS_SUFFIXES
from litelambda.recipe.sections import Data, InteractionsData, NpyData, NpzData, TextData
from litelambda.scaffold.columns import Survey, survey, survey_of_objects
from litelambda.scaffold.network import choose_network, choose_towers
from litelambda.scaffold.project import Examples, Found, Given
from litelambda.scaffold.rows import examples_of
from litelambda.scaffold.tables import inspect_interactions, inspect_table, is_interactions, item_column
from litelambda_serving.errors import RequestError
from litelambda_serving.preprocessing.pictures import size_of

_SECTION: TypeAdapter[Any] = TypeAdapter(Data)
_LINES = (".jsonl", ".ndjson")
_LOOKED_AT = 200  # pictures
_LARGEST_PICTURE, _USUAL_SIZE = 128, 64  # pixels
_MOST_CLASSES = 100
_MOST_TOKENS, _TOKENS_PER_WORD = 256, 1.3
_PICTURES = {".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp"}
EXPECTED = "a CSV, Parquet, .npz or JSON Lines file, a .zip of pictures, or a folder of pictures, texts or .npy files"


def inspect_data(path: Path, given: Given) -> tuple[Found, str, Examples]:
    """Look at a data set, and choose a recipe for it.

    Args:
        path: an absolute one; the recipe has it as it is.
        given: what the user said.

    Returns:
        The recipe, what it is for in one line, and rows with their answers.

    Raises:
        DataError: it cannot be read, or a build would refuse it.
        UsageError: it is of no kind that is known, or the user has to say more.
        OSError: a file cannot be read.
    """
    found = _inspect(path, given)
    found.put("data.path", str(path))
    found.tables["data"].setdefault("task", "classification")
    for key, value in (("validation_split", 0.1), ("test_split", 0.2), ("seed", 0)):
        found.put(f"data.{key}", value)
    section = _SECTION.validate_python(found.tables["data"])
    if isinstance(section, InteractionsData):
        return _recommender(section, found)
    data = load_data(section, path.parent)
    found.notes += [note for note in data.notes if not note.startswith(("categories", "the index", "cells"))]
    choose_network(found, data)
    whole = section.format in ("npz", "npy") and _holds_whole_numbers(path, section)
    return found, _summary(found, data), examples_of(data, whole=whole)


def _recommender(section: InteractionsData, found: Found) -> tuple[Found, str, Examples]:
    interactions = load_interactions(section, Path("/"))
    choose_towers(found)
    summary = f"recommends by {section.item}; learns from {interactions.describe()}"
    return found, summary, examples_of(interactions.users, whole=False, items=interactions.item_names)


def _summary(found: Found, data: Dataset) -> str:
    rows = len(data.train) + len(data.validation or ()) + len(data.test)
    label = found.tables["data"].get("label", [])
    named = label if isinstance(label, str) else ", ".join(label)
    if data.labels is None:
        what = named or counted(data.num_outputs, "number")
    else:
        classes = ", ".join(data.labels[:5]) + (", …" if len(data.labels) > 5 else "")
        kind = f"any of {len(data.labels)} labels" if data.multi_label else f"one of {len(data.labels)} classes"
        what = f"{named}{', ' if named else ''}{kind} ({classes})"
    shape = " x ".join(map(str, data.input_shape))
    values = f"{shape} value{'' if shape == '1' else 's'} each"
    return f"predicts {what}; learns from {counted(rows, 'row')} of {found.tables['data']['format']}, {values}"


def _inspect(path: Path, given: Given) -> Found:
    if path.is_dir():
        return _inspect_folder(path, given)
    suffix = path.suffix.lower()
    if suffix == ".npz":
        return _inspect_arrays(path, given, NpzData(format="npz", path=str(path)))
    if suffix == ".zip":
        return _inspect_pictures(path)
    if suffix in _LINES:
        return _inspect_lines(path, given)
    if suffix not in (".csv", ".tsv", ".txt", ".parquet"):
        model = ". A model is given with --model" if suffix in (*KERAS_SUFFIXES, ".tflite") else ""
        raise UsageError(f"{path}: expected {EXPECTED}{model}")
    seen = survey(path)
    if is_interactions(seen, given):
        return _inspect_interactions(path, seen, given)
    return _with_length(path, inspect_table(path, seen, given))


def _inspect_folder(path: Path, given: Given) -> Found:
    suffixes = {file.suffix.lower() for file in path.rglob("*") if not file.name.startswith(".")}
    if ".npy" in suffixes:
        return _inspect_arrays(path, given, NpyData(format="npy", path=str(path)))
    if suffixes & _PICTURES:
        return _inspect_pictures(path)
    if ".txt" in suffixes:
        found = Found()
        found.put("data.format", "text")
        found.put("data.task", "classification")
        return _with_length(path, found)
    raise UsageError(f"{path} holds neither pictures nor .txt or .npy files: expected {EXPECTED}")


def _inspect_lines(path: Path, given: Given) -> Found:
    objects = []
    for number, line in enumerate(path.read_text(encoding="utf-8-sig").splitlines(), 1):
        try:
            value = json.loads(line) if line.strip() else None
        except (ValueError, RecursionError) as error:
            raise DataError(f"{path}, line {number}: not JSON: {error}") from error
        if isinstance(value, dict):
            objects.append(value)
    seen = survey_of_objects(objects)
    if not any(column.kind == "text" for column in seen.columns.values()):
        keys = ", ".join(seen.columns) or "none"
        raise UsageError(
            f"{path}: JSON Lines hold texts and their labels, and none of {keys} is text: save a table as CSV"
        )
    return _with_length(path, inspect_table(path, seen, given))


def _with_length(path: Path, found: Found) -> Found:
    """With the length of texts and the size of their vocabulary, where it is a recipe of text."""
    data = found.tables["data"]
    if data["format"] != "text":
        return found
    require_extra("text")
    section = TextData.model_validate({**data, "path": str(path)})
    texts = _texts(read_texts(path, section, path.parent), section.text)
    words = np.array([text.count(" ") + 1 for text in texts])
    usual = float(np.quantile(words, 0.95))
    length = int(min(max(16, 8 * np.ceil(_TOKENS_PER_WORD * usual / 8)), _MOST_TOKENS))
    found.guess("data.length", length, f"95 % of the texts have up to {usual:.0f} words; longer ones are cut")
    size = int(min(4000, max(300, len({word for text in texts for word in text.lower().split()}) // 4)))
    found.put("data.tokenizer", {"train": "wordpiece", "vocabulary_size": size})
    return found


def _texts(source: RawDataset, name: str) -> list[str]:
    numbers = np.arange(min(len(source.raw), 20_000))
    return list(source.raw.read(numbers)[name])


def _inspect_interactions(path: Path, seen: Survey, given: Given) -> Found:
    found, item = Found(), item_column(seen, given)
    found.put("data.format", "interactions")
    if given.task:
        found.put("data.task", "recommendation")
    else:
        found.guess("data.task", "recommendation", "the columns say who chose what")
    inspect_interactions(path, seen, _features_of_items(path, seen, item), item, found)
    return found


def _features_of_items(path: Path, seen: Survey, item: str) -> list[str]:
    """The columns of categories that have one value for each item, and fewer values than there are items."""
    wanted = [c.name for c in seen.columns.values() if c.name != item and c.kind == "category"]
    values: Mapping[str, dict[str, set[str]]] = {name: defaultdict(set) for name in wanted}
    file = CsvFile(path)
    for _, cells in file.lines():
        key = cells[file.header.index(item)]
        for name in wanted:
            values[name][key].add(cells[file.header.index(name)].strip())
    num_items = len(seen.columns[item].values)
    return [
        name
        for name in wanted
        if all(len(each) == 1 and "" not in each for each in values[name].values())
        and len(seen.columns[name].values) < num_items
    ]


def _inspect_arrays(path: Path, given: Given, section: NpzData | NpyData) -> Found:
    found, source = Found(), read_array_files(path, section)
    found.put("data.format", section.format)
    x, y = source.train.x, source.train.y
    task, reason = _task_of_targets(y)
    if given.task:
        found.put("data.task", given.task)
    else:
        found.guess("data.task", task, reason)
    shape, some = list(x.shape[1:]), np.asarray(x[: min(len(x), 2000)])
    is_picture = len(shape) in (2, 3) and min(shape[:2]) >= 8 and shape[2:] in ([], [1], [3])
    if is_picture and len(shape) == 2:
        found.guess("data.reshape", [*shape, 1], f"rows of {shape[0]} x {shape[1]} values are taken for pictures")
    elif not is_picture and len(shape) != 1:
        found.guess("data.reshape", [int(np.prod(shape))], "a row of values for the network")
    if some.dtype == np.uint8 or (is_picture and some.min() >= 0 and 1 < some.max() <= 255):
        found.guess("data.normalize", "0-1", f"the values are pixels from {some.min():g} to {some.max():g}")
    elif some.min() < -1 or some.max() > 1:
        found.put("data.normalize", "standardize")
    return found


def _task_of_targets(y: Any) -> tuple[str, str]:
    if y.dtype.kind in "US":
        return ("multi_label" if "|" in "".join(map(str, y[:100])) else "classification"), "the targets are text"
    if y.ndim == 2 and y.shape[1] > 1:
        if not np.isin(y, (0, 1)).all():
            return "regression", f"{y.shape[1]} numbers for each row"
        one_hot = bool((y.sum(axis=1) == 1).all())
        return ("classification", "one-hot targets") if one_hot else ("multi_label", "targets of 0 and 1")
    values = np.unique(y)
    if y.dtype.kind in "buif" and (values == np.round(values)).all() and len(values) <= min(_MOST_CLASSES, len(y) / 5):
        return "classification", f"the targets are {len(values)} different whole numbers"
    return "regression", "the targets are numbers"


def _holds_whole_numbers(path: Path, section: NpzData | NpyData) -> bool:
    return bool(read_array_files(path, section).train.x.dtype.kind in "bui")


def _inspect_pictures(path: Path) -> Found:
    files, unpacked = find_images(path)
    every = [file for listed in files.values() for _, file in listed]
    some = every[:: max(1, len(every) // _LOOKED_AT)][:_LOOKED_AT]
    sizes, gray = _sizes(some)
    del unpacked  # a .zip's files are there until here
    found = Found()
    found.put("data.format", "images")
    found.guess("data.task", "classification", "a folder for each class")
    if len({*sizes}) == 1 and max(sizes[0]) <= _LARGEST_PICTURE:
        found.guess("data.image_size", [*sizes[0]], "all pictures that were looked at have this size")
    else:
        shown = f"{min(sizes)[0]} x {min(sizes)[1]} to {max(sizes)[0]} x {max(sizes)[1]}"
        side = min(_USUAL_SIZE, 8 * math.ceil(float(np.median([max(size) for size in sizes])) / 8))
        found.guess("data.image_size", [side, side], f"pictures have {shown} pixels; larger is slower")
        found.put("data.fit", "pad", 'or "crop", the middle; or "stretch"')
    if gray:
        found.guess("data.color", "grayscale", "no picture that was looked at has colors")
    found.put("data.normalize", "0-1")
    return found


def _sizes(files: Sequence[Path]) -> tuple[list[tuple[int, int]], bool]:
    """Height and width of those that can be read, and whether none has colors."""
    from PIL import Image, UnidentifiedImageError

    sizes, gray = [], True
    for file in files:
        try:
            sizes.append(size_of(file.read_bytes()))
            with Image.open(file) as picture:
                gray &= picture.mode in ("1", "L", "LA", "I", "I;16", "F")
        except (RequestError, UnidentifiedImageError, OSError):
            continue  # the reader counts and names them
    if not sizes:
        raise DataError(f"none of {counted(len(files), 'picture')} can be read, such as {files[0]}")
    return sizes, gray
