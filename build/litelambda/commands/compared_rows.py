"""The rows that two versions are compared on: a file as it is, or the test rows of a recipe as raw values."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from litelambda.common.errors import UsageError
from litelambda.common.extras import require_extra

if TYPE_CHECKING:
    from litelambda.data.dataset import Dataset
    from litelambda.evaluation.version_comparison import Meaning
    from litelambda_serving.artifact import Artifact

_TARGET = "target of the row"
_WHOLE = 1e-3  # how far values are from whole numbers, where normalization was undone


@dataclass(frozen=True)
class ComparedRows:
    """Rows that `score` can read.

    Attributes:
        source: path or URL of the file.
        name: what they are, for people.
        target: the field that has the target; "" where there is none.
        targets: by number of the row, where the file has no field for them.
    """

    source: str
    name: str
    target: str = ""
    targets: list[Any] | None = None

    def read_target(self, line: Mapping[str, Any], meaning: Meaning) -> Any:
        """The target of a row, in the form of an answer; None where it is not known.

        Args:
            line: as `score` writes it.
            meaning: of the predictions.

        Raises:
            UsageError: it is not a number, and the model predicts numbers.
        """
        if self.targets is not None:
            return self.targets[line["row"]]
        value = line.get(f"input_{self.target}", line.get(self.target)) if self.target else None
        if value is None:
            return None
        if meaning.task == "multi_label":
            names = value if isinstance(value, list) else [name.strip() for name in str(value).split("|")]
            return [label for label in meaning.labels or [] if label in names]
        if meaning.task != "regression":
            return str(value)
        try:
            return [float(each) for each in (value if isinstance(value, list) else [value])]
        except ValueError:
            raise UsageError(f"{value!r} in field {self.target!r} is not a number, which the model predicts") from None


def rows_of_file(data: str | Path, target: str | None, artifact: Artifact) -> ComparedRows:
    """A file of rows, with the column that a version predicts as the target where it is not named."""
    documents = artifact.manifest.preprocessing.values()
    predicted = next((each["label"] for each in documents if isinstance(each.get("label"), str)), "")
    return ComparedRows(str(data), f"the rows of {data}", predicted if target is None else target)


def rows_of_recipe(path: str, folder: Path) -> ComparedRows:
    """The test rows of a recipe, written into a folder as raw values.

    Raises:
        UsageError: it is a recipe of a recommender.
        LitelambdaError: the recipe or its data cannot be read.
    """
    require_extra("build")
    from litelambda.data.dataset import load_data
    from litelambda.recipe.load import load_recipe

    recipe = load_recipe(Path(path))
    if recipe.data.format == "interactions":
        raise UsageError(f"{path} recommends: give a file of requests with --data")
    data = load_data(recipe.data, recipe.folder)
    name = f"the test rows of {path}"
    if data.raw_test is None:
        np.save(folder / "rows.npy", _raw_values(data))
        return ComparedRows(str(folder / "rows.npy"), name, targets=_targets(data))
    columns = data.raw_test(np.arange(len(data.test)))
    with (folder / "rows.jsonl").open("w", encoding="utf-8") as file:
        for row, target in enumerate(_targets(data)):
            fields = {field: _as_json(values[row]) for field, values in columns.items()}
            file.write(json.dumps({**fields, _TARGET: target}) + "\n")
    return ComparedRows(str(folder / "rows.jsonl"), name, _TARGET)


def _raw_values(data: Dataset) -> Any:
    """The test rows before they were normalized."""
    values = np.asarray(data.test.x[:], np.float64)
    form = data.preprocessing
    undo = getattr(form, "undo", None)
    values = undo(values) if undo else values
    whole = np.round(values)
    return (whole if np.abs(values - whole).max(initial=0.0) < _WHOLE else values).astype(np.float32)


def _targets(data: Dataset) -> list[Any]:
    """The targets of the test rows in the form of answers."""
    if data.labels is None:
        return list(data.test.y.tolist())
    if data.multi_label:
        return [[data.labels[label] for label in np.flatnonzero(row)] for row in data.test.y]
    return [data.labels[label] for label in data.test.y]


def _as_json(value: Any) -> Any:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value
