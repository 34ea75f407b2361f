"""A build's comparison at the root: its trained Keras model against the float flatbuffer that was made of it."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from litelambda.artifact.reference import Reference
from litelambda.conversion.export import save_with_modules
from litelambda.evaluation.comparison import Runs, check_against_source, made_runs, representative_runs
from litelambda.evaluation.source_answers import Answers, Described, Source, SourceLoadError
from litelambda.keras_tools.backend import backend


def check_build(model: Any, in_float: bytes, rows: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Check the float flatbuffer of a build against its model's own predictions.

    Args:
        model: the Keras model that was converted, as training or compression left it.
        in_float: the flatbuffer.
        rows: of the test split, by input name.

    Returns:
        What was compared with what, for the manifest's metrics.

    Raises:
        VerificationError: the flatbuffer does not answer as the model.
        ConversionError: the model keeps state, draws random numbers, or has weights that are not finite.
    """
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        described, runs, answers, where = _answers(model, rows, Path(scratch))
    runs = runs.take(answers.answered)
    share = check_against_source(answers, Reference(in_float).run_each(runs.inputs), runs, described.precision)
    return {"source": f"Keras' predict, {where}", "float_difference": share, "rows_compared": len(runs.names)}


def _answers(model: Any, rows: Mapping[str, NDArray[Any]], folder: Path) -> tuple[Described, Runs, Answers, str]:
    """From a process of its own; in this one where the model's file cannot be loaded without what only this one has."""
    try:
        source = Source(save_with_modules(model, folder / "model.keras"), folder, backend(), own=True)
        described = source.describe()
        runs = _runs(described, rows)
        return described, runs, source.answer(runs.inputs), "in a process of its own"
    except (SourceLoadError, NotImplementedError):
        from litelambda.evaluation.source_process import answer
        from litelambda.evaluation.sources_loaded import KerasSource

        held = KerasSource(model, repr(model.name))
        described = held.describe()
        runs = _runs(described, rows)
        outputs, refused = answer(held, runs.inputs)
        answered = [index for index in range(len(runs.names)) if index not in refused]
        where = "the model in memory, since its file cannot be loaded"
        return described, runs, Answers(outputs, answered, refused), where


def _runs(described: Described, rows: Mapping[str, NDArray[Any]]) -> Runs:
    count = len(next(iter(rows.values())))
    return made_runs(described.inputs).joined(representative_runs(rows, described.inputs, range(count)))
