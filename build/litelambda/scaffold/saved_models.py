"""A model that was made elsewhere: what it takes, and what it answers itself, as the served one has to."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.reference import Reference
from litelambda.commands.import_layouts import EXPECTED, find_model
from litelambda.commands.import_tflite import read_tflite
from litelambda.common.arrays import Arrays
from litelambda.common.child_process import shared_folder
from litelambda.common.errors import UsageError
from litelambda.evaluation.comparison import representative_runs, rows_of_a_run
from litelambda.evaluation.representative_rows import check_rows, read_rows
from litelambda.evaluation.source_model import SourceModel
from litelambda.evaluation.verify import answered, runs_of
from litelambda.keras_tools.model_files import KERAS_SUFFIXES
from litelambda.keras_tools.model_inputs import ModelInput
from litelambda.scaffold.project import Examples, Found, Given
from litelambda.scaffold.rows import plain

_ROWS = 8
_Input = tuple[str, str, Sequence[Any]]  # name, dtype and shape
_TEXTS = ("a text", "another, longer text")


def inspect_model(path: Path, given: Given) -> tuple[Found, str, Examples]:
    """Look at a model, and choose how to import it.

    Args:
        path: of the model, or of an archive or folder with one in it, absolute; the recipe has it as it is.
        given: what the user said.

    Returns:
        The recipe, what it is for in one line, and rows with what the model itself answers.

    Raises:
        UsageError: it is of another kind, has no model or several in it, or rows are given that cannot be used.
        DataError: the representative rows do not fit it.
        ConversionError: it cannot be loaded, or must not be published.
    """
    found = Found()
    with tempfile.TemporaryDirectory(dir=shared_folder()) as unpacked:
        model = find_model(path, Path(unpacked))
        inside = model.path if model.path.is_relative_to(path) else path  # what is unpacked is deleted
        found.put("import.path", str(inside))
        if model.path != path:
            is_unpacked = model.inside == "."
            said = "is a .keras file, unpacked" if is_unpacked else f"has the model in {model.inside}"
            found.notes.append(f"{path.name} {said}")
        found.notes += model.warnings
        inputs, examples = _ask(model.path, given, found)
    if given.representative is not None:
        found.put("import.representative", str(given.representative.resolve()))
    if given.labels is not None:
        found.put("import.labels", str(given.labels.resolve()))
    if not examples.rows:
        found.notes.append("write a row or more into tests/rows.json, and the right answers into tests/expected.json")
    shapes = "; ".join(f"{name}: {dtype} {list(shape)}" for name, dtype, shape in inputs)
    return found, f"a model that takes {shapes}", examples


def _ask(path: Path, given: Given, found: Found) -> tuple[list[_Input], Examples]:
    """What a model takes, and what it answers."""
    if path.is_dir() or path.suffix in KERAS_SUFFIXES:
        return _ask_source(path, given, found)
    if path.suffix != ".tflite":
        raise UsageError(f"{path}: {EXPECTED}")
    if given.representative is not None:
        raise UsageError(f"{path} is converted already and cannot be quantized: leave --representative out")
    found.notes.append("a .tflite file is published byte for byte")
    return _ask_tflite(path)


def _ask_source(path: Path, given: Given, found: Found) -> tuple[list[_Input], Examples]:
    source = SourceModel(path)
    inputs = source.describe().inputs
    if given.representative is None:
        found.notes.append(
            "without representative rows the model stays float32: put an .npy or .npz file of rows as the model will "
            "see them into import.representative, and it is quantized to int8"
        )
        rows = _made_rows(inputs)
    else:
        rows = read_rows(given.representative, inputs)
        found.notes += check_rows(rows, accept_loss=False)
    step = rows_of_a_run(inputs)
    count = step if step > 1 else min(_ROWS, len(next(iter(rows.values()))))
    runs = representative_runs(rows, inputs, range(count))
    answers = source.answer(runs.inputs)
    runs = runs.take(answers.answered)
    outputs = {name: values[answers.answered] for name, values in answers.outputs.items()}
    return [(each.name, each.dtype, each.shape) for each in inputs], _examples(runs.inputs, outputs)


def _made_rows(inputs: Sequence[ModelInput]) -> Arrays:
    """Rows of made values: the test compares with the model's own answers to them, whatever they mean."""
    noise = np.random.default_rng(0)
    rows: Arrays = {}
    count = max(_ROWS, rows_of_a_run(inputs))
    for each in inputs:
        shape = (count, *(size or 1 for size in each.shape[1:]))
        if each.dtype == "string":
            rows[each.name] = np.resize(np.array([text.encode() for text in _TEXTS], object), shape)
        elif np.dtype(each.dtype).kind == "f":
            rows[each.name] = noise.random(shape, np.float32).astype(each.dtype)
        else:
            rows[each.name] = noise.integers(0, min(each.limit or 2, 127), shape).astype(each.dtype)
    return rows


def _ask_tflite(path: Path) -> tuple[list[_Input], Examples]:
    model = read_tflite(path)
    inputs: list[_Input] = [(each.name, each.dtype, each.shape) for each in model.signature.inputs]
    if model.preprocessing or any(dtype == "string" for _, dtype, _ in inputs):
        return inputs, Examples([], [])  # raw values become others before the file itself sees them
    some = {name: rows[:_ROWS] if len(rows) > _ROWS else rows for name, rows in model.rows.items()}
    runs, outputs = answered(Reference(path, model.signature.key), runs_of(model.signature, some))
    return inputs, _examples(runs, outputs)


def _examples(runs: Mapping[str, NDArray[Any]], outputs: Mapping[str, NDArray[Any]]) -> Examples:
    """Runs and their outputs as rows of a request, and as its answers; none where a tensor has no row for each."""
    arrays = [*runs.values(), *outputs.values()]
    if any(values.ndim < 2 for values in arrays) or len({len(v) * v.shape[1] for v in arrays}) > 1:
        return Examples([], [])
    return Examples(_rows(runs), _rows(outputs))


def _rows(arrays: Mapping[str, NDArray[Any]]) -> list[Any]:
    columns = {name: _in_json(values.reshape(-1, *values.shape[2:])) for name, values in arrays.items()}
    if len(columns) == 1:
        return next(iter(columns.values()))
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def _in_json(values: NDArray[Any]) -> list[Any]:
    if values.dtype.kind != "O":
        return plain(values)
    texts = [text.decode() for text in values.ravel().tolist()]
    found: list[Any] = np.array(texts, object).reshape(values.shape).tolist()
    return found
