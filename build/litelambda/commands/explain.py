"""What a version has for its explanations: the gradients of the float model, and the mean row of a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.common.errors import ConversionError, TrainError
from litelambda.conversion.gradients import (
    GRADIENTS_NAME,
    Gradients,
    Samples,
    export_gradients,
    export_gradients_of_file,
)
from litelambda.conversion.quantize import Quantized
from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import RawForm
from litelambda.evaluation.baseline import baseline_of
from litelambda.evaluation.explanation_check import check_explanations
from litelambda.evaluation.representative_rows import Rows
from litelambda.keras_tools.model_files import KERAS_SUFFIXES
from litelambda.recipe.load import Recipe
from litelambda.recipe.sections import InteractionsData

MOST_BYTES = 10_000_000
"""Of a float model whose gradients are exported without being asked for: larger ones take minutes."""

_SAMPLES = 16


@dataclass(frozen=True)
class Explained:
    """What is published for explanations.

    Attributes:
        document: the manifest's `explain`.
        files: contents by name.
        summary: for a person.
        checked: how the explanations of test rows fare, see `explanation_check`; empty where that was not asked for.
    """

    document: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)
    summary: str = "left out"
    checked: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, gradients: Gradients, baseline: Mapping[str, Any]) -> Explained:
        """From gradients, and what the manifest has of a baseline."""
        if gradients.document is None:
            return cls({"note": gradients.note, **baseline}, {}, gradients.describe())
        files = {GRADIENTS_NAME: gradients.artifact}
        return cls({"gradients": gradients.document, **baseline}, files, gradients.describe())


def explain_build(recipe: Recipe, model: Any, data: Dataset, quantized: Quantized) -> Explained:
    """What a build publishes.

    Args:
        recipe: says whether gradients are wanted.
        model: the Keras model that was quantized.
        data: of the build.
        quantized: what it became.
    """
    (tensor,) = quantized.signature.inputs
    baseline = baseline_of(data, tensor, recipe.train.seed)
    if isinstance(recipe.data, InteractionsData):
        return Explained.of(Gradients(note="an item's place among the best has no gradient"), baseline)
    if refusal := _left_out(len(quantized.in_float), recipe.explain.gradients, "set explain.gradients = true"):
        return Explained.of(Gradients(note=refusal), baseline)
    name, form = model.inputs[0].name, data.preprocessing
    padding = form.document.get("padding", 0) if isinstance(form, RawForm) else 0
    compared_with = baseline["baseline"][tensor.name] if baseline else padding
    samples = Samples({name: np.asarray(data.test.x[:_SAMPLES])}, {name: compared_with})
    explained = Explained.of(export_gradients(model, samples), baseline)
    if not explained.files or not recipe.publish.report_examples or recipe.train.backend == "jax":
        return explained
    try:
        return replace(explained, checked=check_explanations(model, samples, recipe.train.seed))
    except (ConversionError, TrainError) as error:
        return replace(explained, checked={"left_out": str(error)})


def explain_import(path: Path, rows: Rows, float_bytes: int, *, wanted: bool | None) -> Explained:
    """What an import publishes.

    Args:
        path: of the model.
        rows: some, by input.
        float_bytes: size of its float flatbuffer.
        wanted: whether to export gradients; None for what its size allows.
    """
    if path.suffix not in KERAS_SUFFIXES:
        return Explained.of(Gradients(note="its file has none, import the .keras file that it was made of"), {})
    if refusal := _left_out(float_bytes, wanted, "import with --explain"):
        return Explained.of(Gradients(note=refusal), {})
    samples = Samples({name: values[:_SAMPLES] for name, values in rows.items()})
    return Explained.of(export_gradients_of_file(path, samples), {})


def _left_out(float_bytes: int, wanted: bool | None, remedy: str) -> str:
    if wanted is False:
        return "they were not wanted"
    if wanted is None and float_bytes > MOST_BYTES:
        return f"the float model has more than {MOST_BYTES:,} bytes: {remedy}"
    return ""
