"""The source: a model as it was handed in, whose answers Keras or TensorFlow compute in a process of its own.

The process, see `source_process`, loads the file or folder itself and changes nothing: no copy, no rewrite, no
converter.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from litelambda.common.array_files import Arrays, read_arrays, write_arrays
from litelambda.common.errors import ConversionError, MemoryShortageError
from litelambda.common.kept_process import KeptProcess
from litelambda.common.processes import describe_exit, lacked_memory
from litelambda.keras_tools.backend import Backend
from litelambda.keras_tools.model_inputs import ModelInput

_PROCESSES: dict[Backend, KeptProcess] = {}  # a process has one backend
RUNS, ANSWERS, DESCRIBED, REFUSED, FAILURE = "runs.npz", "answers.npz", "described.json", "refused.json", "failure"
"""Files between the two processes."""


@dataclass(frozen=True)
class Described:
    """What a loaded source says about itself.

    Attributes:
        inputs: in the order in which it takes them.
        precision: the least precise type that it computes in.
    """

    inputs: tuple[ModelInput, ...]
    precision: str


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


class SourceLoadError(ConversionError):
    """A source cannot be loaded in a process of its own; in this one it may answer all the same."""


class Source:
    """A model that was handed in, loaded and run in a child process.

    Args:
        path: a .keras or .h5 file, or the folder of a SavedModel.
        folder: a scratch folder.
        backend: what Keras runs on.
        own: a file that this build wrote, whose custom layers may be imported.
    """

    def __init__(self, path: Path, folder: Path, backend: Backend = "tensorflow", *, own: bool = False) -> None:
        self._job: dict[str, Any] = {"source": str(path), "backend": backend, "own": own, "exact": False}
        self._folder = folder
        self._process = _PROCESSES.setdefault(backend, KeptProcess("litelambda.evaluation.source_process"))

    def describe(self) -> Described:
        """Load the model and describe its inputs.

        Raises:
            SourceLoadError: it cannot be loaded.
            ConversionError: it must not be published as it is.
        """
        self._ask(runs=False)
        found = json.loads((self._folder / DESCRIBED).read_text())
        inputs = (
            ModelInput(**{**each, "shape": tuple(each["shape"]), "mask_values": tuple(each["mask_values"])})
            for each in found["inputs"]
        )
        return Described(tuple(inputs), found["precision"])

    def answer(self, runs: Mapping[str, NDArray[Any]]) -> Answers:
        """Run the model.

        Args:
            runs: per input, each entry the whole input of a run.

        Raises:
            ConversionError: equal runs get different answers, or no run gets one.
        """
        write_arrays(self._folder / RUNS, runs)
        self._ask(runs=True)
        refused = {int(index): reason for index, reason in json.loads((self._folder / REFUSED).read_text()).items()}
        answered = [index for index in range(len(next(iter(runs.values())))) if index not in refused]
        return Answers(read_arrays(self._folder / ANSWERS), answered, refused)

    def answer_exactly(self, runs: Mapping[str, NDArray[Any]]) -> Answers | None:
        """Run the model in float64, to tell rounding from a fault; None where it does not run so, as a SavedModel.

        Args:
            runs: per input, each entry the whole input of a run.
        """
        self._job["exact"] = True
        try:
            answers = self.answer(runs)
        except ConversionError:
            return None
        finally:
            self._job["exact"] = False
        return None if answers.refused else answers

    def _ask(self, *, runs: bool) -> None:
        path, failure = self._folder / "source.json", self._folder / FAILURE
        failure.unlink(missing_ok=True)
        path.write_text(json.dumps({**self._job, "runs": runs}))
        child = self._process.run(path.absolute())
        if child.returncode == 0:
            return
        if failure.exists():
            found = json.loads(failure.read_text())
            raise (SourceLoadError if found["loading"] else ConversionError)(found["message"])
        if lacked_memory(child.returncode, child.stderr):
            raise MemoryShortageError(
                f"out of memory while loading {self._job['source']}: use a machine with more memory"
            )
        raise ConversionError(
            f"loading and running {self._job['source']} ended its process ({describe_exit(child.returncode)}): the "
            "file is damaged"
        )
