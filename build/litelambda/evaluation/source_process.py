"""The child of `source_model`: it loads a model as it was handed in and runs it.

    python -m litelambda.evaluation.source_process

is kept for the next model. It refuses models without one right answer: those with state or random numbers.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.array_files import Arrays, read_arrays, write_arrays
from litelambda.common.errors import ConversionError, first_line
from litelambda.common.kept_process import serve
from litelambda.evaluation.loaded_sources import KerasSource, SavedModelSource
from litelambda.evaluation.source_model import (
    ANSWERS,
    DESCRIBED,
    FAILURE,
    REFUSED,
    RUNS,
    SourceLoadError,
)
from litelambda.keras_tools.backend import backend, choose_backend
from litelambda.keras_tools.model_files import KERAS_SUFFIXES

_REPEATED_RUNS = 4
_REPEATED_TOLERANCE = 2.0**-12
"""Of an answer's size: how far two answers to the same row may be apart, since threads may add in another order."""


class _Loaded:
    """The source that the child holds, from its description to its answers."""

    path: str = ""
    source: Any = None


def run_job(path: Path) -> int:
    """In the child: describe a source or run it; 0, or 1 and the reason in the file "failure"."""
    job, folder = json.loads(path.read_text()), path.parent
    try:
        if job["backend"] != backend():  # TensorFlow, unless this process was asked for JAX
            choose_backend(job["backend"])
        if _Loaded.path != job["source"]:
            _Loaded.source, _Loaded.path = None, ""
            _Loaded.source = _load(Path(job["source"]), own=job["own"])
            _Loaded.path = job["source"]
        source = _Loaded.source
        if not job["runs"]:
            (folder / DESCRIBED).write_text(json.dumps(asdict(source.describe())))
            return 0
        _Loaded.source, _Loaded.path = None, ""
        if job["exact"]:
            source.compute_in_float64()
        outputs, refused = answer(source, read_arrays(folder / RUNS))
        write_arrays(folder / ANSWERS, outputs)
        (folder / REFUSED).write_text(json.dumps(refused))
    except ConversionError as error:
        failure = {"loading": isinstance(error, SourceLoadError), "message": str(error)}
        (folder / FAILURE).write_text(json.dumps(failure))
        return 1
    return 0


def _load(path: Path, *, own: bool) -> Any:
    return KerasSource.load(path, own=own) if path.suffix in KERAS_SUFFIXES else SavedModelSource(path)


def answer(source: Any, runs: Arrays) -> tuple[Arrays, dict[int, str]]:
    """Run a loaded source, on some inputs twice.

    Returns:
        Its answers, and by number the reasons why it refuses other runs.

    Raises:
        ConversionError: it changes its own variables, or equal runs get different answers, or it refuses all.
    """
    before = source.checksums()
    found: dict[int, Arrays] = {}
    refused: dict[int, str] = {}
    for index in range(len(next(iter(runs.values())))):
        try:
            found[index] = source.run({name: values[index] for name, values in runs.items()})
        except Exception as error:  # noqa: BLE001 - a model may raise anything for a row that it does not take
            refused[index] = f"{type(error).__name__}: {first_line(error)}"
    if not found:
        raise ConversionError(f"{source.name} refuses every row: {refused[0]}")
    after = source.checksums()
    if changed := [name for name in before if before[name] != after[name]]:
        raise ConversionError(
            f"{source.name} changes its own variables when it predicts ({', '.join(changed[:3])}): an answer "
            f"would depend on earlier requests. {source.advice()}"
        )
    for index in list(found)[:_REPEATED_RUNS]:
        again = source.run({name: values[index] for name, values in runs.items()})
        if name := next((name for name in again if _differ(found[index][name], again[name])), None):
            raise ConversionError(
                f"{source.name} gives different answers for equal rows (output {name!r}): it keeps state or draws "
                f"random numbers. {source.advice()}"
            )
    stacked = {name: np.stack([each[name] for each in found.values()]) for name in next(iter(found.values()))}
    return stacked, refused


def _differ(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.dtype.kind not in "fc" or first.shape != second.shape:
        return not np.array_equal(first, second)
    size = np.max(np.abs(first[np.isfinite(first)]), initial=0.0)
    return not np.allclose(first, second, rtol=0, atol=_REPEATED_TOLERANCE * float(size), equal_nan=True)


if __name__ == "__main__":
    serve(run_job)
