"""The source comparison of a build: its Keras model against the float flatbuffer that was made from it."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from litelambda.artifact.reference import Reference
from litelambda.evaluation.comparison import check_against_source, representative_runs
from litelambda.evaluation.loaded_sources import Described, KerasSource, SourceLoadError
from litelambda.evaluation.source_model import SourceModel
from litelambda.evaluation.source_process import Answers, answer
from litelambda.keras_tools.backend import backend
from litelambda.keras_tools.made_rows import Runs, made_runs
from litelambda.keras_tools.model_files import save_with_modules


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
        asked = ask_source(model, rows, Path(scratch))
        share = asked.check(Reference(in_float).run_each(asked.runs.inputs))
    where = asked.where
    return {"source": f"Keras' predict, {where}", "float_difference": share, "rows_compared": len(asked.runs.names)}


@dataclass(frozen=True)
class Asked:
    """What a Keras model itself answers.

    Attributes:
        runs: those that it answered.
        answers: to them.
        precision: the least precise type that it computes in.
        where: in which process they were made.
        ask_exactly: the answers in float64; None where it does not compute so.
    """

    runs: Runs
    answers: Answers
    precision: str
    where: str
    ask_exactly: Callable[[], Answers | None]

    def check(self, found: Mapping[str, NDArray[Any]]) -> float:
        """Refuse a float flatbuffer whose answers are others, see `check_against_source`."""
        return check_against_source(self.answers, found, self.runs, self.precision, self.ask_exactly)


def ask_source(model: Any, rows: Mapping[str, NDArray[Any]], folder: Path) -> Asked:
    """What a Keras model itself answers to made rows and given ones, but for those that it refuses.

    From a process of its own; in this one where the model's file cannot be loaded without what only this one has.

    Args:
        model: the Keras model.
        rows: by input name.
        folder: a scratch folder, still needed by `Asked.check`.

    Raises:
        ConversionError: the model keeps state, draws random numbers, or has weights that are not finite.
    """
    names = [tensor.name for tensor in model.inputs]
    try:
        source = SourceModel(save_with_modules(model, folder / "model.keras"), backend(), own=True)
        described = source.describe()
        theirs = [each.name for each in described.inputs]  # loading names inputs that have none of their own
        inputs = (replace(each, name=name) for each, name in zip(described.inputs, names, strict=True))
        described = replace(described, inputs=tuple(inputs))
        runs = _runs(described, rows)
        answers = source.answer(dict(zip(theirs, runs.inputs.values(), strict=True)))
        runs = runs.take(answers.answered)

        def ask_exactly() -> Answers | None:
            return source.answer_exactly(dict(zip(theirs, runs.inputs.values(), strict=True)))

        return Asked(runs, answers, described.precision, "in a process of its own", ask_exactly)
    except (SourceLoadError, NotImplementedError):
        held = KerasSource(model, repr(model.name))
        described = held.describe()
        runs = _runs(described, rows)
        found = answer(held, runs.inputs)
        where = "the model in memory, since its file cannot be loaded"
        return Asked(runs.take(found.answered), found, described.precision, where, lambda: None)


def _runs(described: Described, rows: Mapping[str, NDArray[Any]]) -> Runs:
    count = len(next(iter(rows.values())))
    return made_runs(described.inputs).joined(representative_runs(rows, described.inputs, range(count)))
