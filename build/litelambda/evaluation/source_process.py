"""What `source_model` calls in the source's process: it loads a model as it was handed in and runs it.

It refuses models without one right answer: those with state or random numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.arrays import Arrays
from litelambda.common.errors import ConversionError, first_line
from litelambda.evaluation.loaded_sources import Described, KerasSource, SavedModelSource
from litelambda.keras_tools.backend import Backend, backend, choose_backend
from litelambda.keras_tools.model_files import KERAS_SUFFIXES

_REPEATED_RUNS = 4
_REPEATED_TOLERANCE = 2.0**-12
"""Of an answer's size: how far two answers to the same row may be apart, since threads may add in another order."""


@dataclass(frozen=True)
class SourceFile:
    """A model as it was handed in.

    Attributes:
        path: a .keras or .h5 file, or the folder of a SavedModel.
        backend: what Keras runs on.
        own: a file that this build wrote, whose custom layers may be imported.
    """

    path: Path
    backend: Backend
    own: bool


@dataclass(frozen=True)
class Answers:
    """Answers of a source.

    Attributes:
        outputs: by name, an entry per run that it answered.
        answered: the numbers of those runs.
        refused: the others by number, with the reason.
    """

    outputs: Arrays
    answered: list[int]
    refused: dict[int, str]


class _Loaded:
    """The source that the child holds, from its description to its answers."""

    file: SourceFile | None = None
    source: Any = None


def describe(file: SourceFile) -> Described:
    """Load a source and describe it.

    Raises:
        ConversionError: it cannot be loaded, or must not be published.
    """
    described: Described = _load(file).describe()
    return described


def answer_once(file: SourceFile, runs: Mapping[str, NDArray[Any]], *, exact: bool) -> Answers:
    """Run a source and let go of it: see `answer`.

    Args:
        file: the source.
        runs: per input, each entry the whole input of a run.
        exact: compute in float64.
    """
    source = _load(file)
    _Loaded.file = _Loaded.source = None
    if exact:
        source.compute_in_float64()
    return answer(source, runs)


def _load(file: SourceFile) -> Any:
    if file.backend != backend():  # TensorFlow, unless this process was asked for JAX
        choose_backend(file.backend)
    if _Loaded.file != file:
        _Loaded.file = _Loaded.source = None
        is_keras = file.path.suffix in KERAS_SUFFIXES
        _Loaded.source = KerasSource.load(file.path, own=file.own) if is_keras else SavedModelSource(file.path)
        _Loaded.file = file
    return _Loaded.source


def answer(source: Any, runs: Mapping[str, NDArray[Any]]) -> Answers:
    """Run a loaded source, on some inputs twice.

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
    return Answers(stacked, list(found), refused)


def _differ(first: NDArray[Any], second: NDArray[Any]) -> bool:
    if first.dtype.kind not in "fc" or first.shape != second.shape:
        return not np.array_equal(first, second)
    size = np.max(np.abs(first[np.isfinite(first)]), initial=0.0)
    return not np.allclose(first, second, rtol=0, atol=_REPEATED_TOLERANCE * float(size), equal_nan=True)
