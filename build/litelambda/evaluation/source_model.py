"""The source: a model as it was handed in, whose answers Keras or TensorFlow compute in a process of its own.

The process, see `source_process`, loads the file or folder itself and changes nothing: no copy, no rewrite, no
converter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from numpy.typing import NDArray

from litelambda.common.child_process import ChildCrashError, ChildProcess
from litelambda.common.errors import ConversionError, MemoryShortageError
from litelambda.evaluation.loaded_sources import Described
from litelambda.evaluation.source_process import Answers, SourceFile, answer_once, describe
from litelambda.keras_tools.backend import Backend

P = ParamSpec("P")
T = TypeVar("T")

_PROCESSES: dict[Backend, ChildProcess] = {}  # a process has one backend


class SourceModel:
    """A model that was handed in, loaded and run in a child process.

    Args:
        path: a .keras or .h5 file, or the folder of a SavedModel.
        backend: what Keras runs on.
        own: a file that this build wrote, whose custom layers may be imported.
    """

    def __init__(self, path: Path, backend: Backend = "tensorflow", *, own: bool = False) -> None:
        self._file = SourceFile(path.absolute(), backend, own)
        self._process = _PROCESSES.setdefault(backend, ChildProcess())

    def describe(self) -> Described:
        """Load the model and describe its inputs.

        Raises:
            SourceLoadError: it cannot be loaded.
            ConversionError: it must not be published as it is.
        """
        return self._ask(describe, self._file)

    def answer(self, runs: Mapping[str, NDArray[Any]], *, exact: bool = False) -> Answers:
        """Run the model.

        Args:
            runs: per input, each entry the whole input of a run.
            exact: compute in float64.

        Raises:
            ConversionError: equal runs get different answers, or no run gets one.
        """
        return self._ask(answer_once, self._file, runs, exact=exact)

    def answer_exactly(self, runs: Mapping[str, NDArray[Any]]) -> Answers | None:
        """Run the model in float64, to tell rounding from a fault; None where it does not run so, as a SavedModel.

        Args:
            runs: per input, each entry the whole input of a run.
        """
        try:
            answers = self.answer(runs, exact=True)
        except ConversionError:
            return None
        return None if answers.refused else answers

    def _ask(self, function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        try:
            return self._process.call(function, *arguments, **keywords)
        except ChildCrashError as error:
            path = self._file.path
            if error.for_memory:
                raise MemoryShortageError(
                    f"out of memory while loading {path}: use a machine with more memory"
                ) from error
            raise ConversionError(
                f"loading and running {path} ended its process ({error.ended}): the file is damaged"
            ) from error
