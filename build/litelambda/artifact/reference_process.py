"""The reference Interpreter in a process of its own: a flatbuffer that crashes it ends that process, not the command.

    python -m litelambda.artifact.reference_process

is the child, kept for the next job. The model that it opened last stays open until the next one.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import UNNAMED_SIGNATURE
from litelambda.artifact.flatbuffer_check import Inspected, inspect
from litelambda.common.array_files import Arrays, read_arrays, write_arrays
from litelambda.common.errors import ConversionError, MemoryShortageError, VerificationError, first_line
from litelambda.common.kept_process import KeptProcess, serve
from litelambda.common.processes import describe_exit, lacked_memory

_RUNS, _OUTPUTS, _FAILURE, _FOUND = "rows.npz", "outputs.npz", "failure", "found.json"
_PROCESS = KeptProcess("litelambda.artifact.reference_process")


@dataclass(frozen=True)
class _ReferenceJob:
    """Inspect a flatbuffer, open it, or run rows; each row is the whole input of a run where `batch` is None."""

    model: str
    inspect: bool = False
    signature: str = ""
    num_threads: int = 1
    outputs: tuple[str, ...] = ()
    batch: int | None = None


def inspect_in_child(model: Path, folder: Path) -> Inspected:
    """Read a flatbuffer from elsewhere without running it.

    Args:
        model: the flatbuffer.
        folder: a scratch folder.

    Raises:
        ConversionError: it is damaged, or crashes its reader.
    """
    try:
        _ask(_ReferenceJob(str(model), inspect=True), folder)
    except VerificationError as error:
        raise ConversionError(f"{model} is damaged or cut short: {error}") from error
    return Inspected(**json.loads((folder / _FOUND).read_text()))


def open_in_child(model: Path, signature: str, num_threads: int, folder: Path) -> None:
    """Open a flatbuffer in the Interpreter and allocate its tensors.

    Raises:
        VerificationError: the Interpreter refuses it, or crashed.
    """
    _ask(_ReferenceJob(str(model), signature=signature, num_threads=num_threads), folder)


def run_in_child(
    model: Path,
    signature: str,
    num_threads: int,
    rows: Mapping[str, NDArray[Any]],
    outputs: tuple[str, ...],
    batch: int | None,
    folder: Path,
) -> Arrays:
    """Run rows, `batch` at a time; where it is None, each entry of the arrays is the whole input of a run.

    Raises:
        VerificationError: the Interpreter cannot run the model, or not so many rows at once, or crashed.
    """
    write_arrays(folder / _RUNS, rows)
    _ask(_ReferenceJob(str(model), False, signature, num_threads, outputs, batch), folder)
    return read_arrays(folder / _OUTPUTS)


def _ask(job: _ReferenceJob, folder: Path) -> None:
    path, failure = folder / "job.json", folder / _FAILURE
    failure.unlink(missing_ok=True)
    path.write_text(json.dumps(asdict(job)))
    child = _PROCESS.run(path.absolute())
    if child.returncode == 0:
        return
    if failure.exists():
        raise VerificationError(failure.read_text())
    if lacked_memory(child.returncode, child.stderr):
        raise MemoryShortageError("the reference Interpreter ran out of memory: use a machine with more memory")
    raise VerificationError(f"the reference Interpreter crashed ({describe_exit(child.returncode)}) on the model")


class _Opened:
    """The model that the child has open."""

    key: tuple[str, int, str, int] | None = None
    runner: Callable[..., Mapping[str, NDArray[Any]]] | None = None


def run_job(path: Path) -> int:
    """In the child: do one job; 0, or 1 and the reason in the file "failure"."""
    fields = json.loads(path.read_text())
    job, folder = _ReferenceJob(**{**fields, "outputs": tuple(fields["outputs"])}), path.parent
    try:
        if job.inspect:
            (folder / _FOUND).write_text(json.dumps(asdict(inspect(Path(job.model)))))
            return 0
        runner = _runner(job)
        if job.outputs:
            write_arrays(folder / _OUTPUTS, _run(runner, job, read_arrays(folder / _RUNS)))
    except (RuntimeError, ValueError, ConversionError) as error:
        (folder / _FAILURE).write_text(
            first_line(error) if job.inspect else f"the reference Interpreter cannot run the model: {first_line(error)}"
        )
        return 1
    return 0


def _runner(job: _ReferenceJob) -> Callable[..., Mapping[str, NDArray[Any]]]:
    key = (job.model, Path(job.model).stat().st_mtime_ns, job.signature, job.num_threads)
    if _Opened.runner is None or _Opened.key != key:
        from ai_edge_litert.interpreter import Interpreter

        _Opened.key = _Opened.runner = None  # two models at once need not fit into memory
        interpreter = Interpreter(model_path=job.model, num_threads=job.num_threads)
        interpreter.allocate_tensors()
        _Opened.runner = _open_signature(interpreter, job.signature)
        _Opened.key = key
    return _Opened.runner


def _run(runner: Callable[..., Mapping[str, NDArray[Any]]], job: _ReferenceJob, rows: Arrays) -> Arrays:
    num_rows, step = len(next(iter(rows.values()))), job.batch or 1
    parts = []
    for start in range(0, num_rows, step):
        given = {name: all_[start : start + step] if job.batch else all_[start] for name, all_ in rows.items()}
        parts.append({name: np.array(values) for name, values in runner(**given).items()})
    if job.batch:
        return {name: np.concatenate([part[name] for part in parts]) for name in job.outputs}
    return {name: np.stack([part[name] for part in parts]) for name in job.outputs}


def _open_signature(interpreter: Any, signature: str) -> Callable[..., Mapping[str, NDArray[Any]]]:
    if signature == UNNAMED_SIGNATURE:
        sides = (interpreter.get_input_details(), interpreter.get_output_details())
        return _ByIndex(interpreter, *({each["name"]: each["index"] for each in side} for side in sides))
    indices = interpreter.get_signature_list()[signature]
    if "self" in indices["inputs"]:  # a name that a signature runner cannot be called with
        found = interpreter._get_full_signature_list()[signature]
        return _ByIndex(interpreter, found["inputs"], found["outputs"])
    runner: Callable[..., Mapping[str, NDArray[Any]]] = interpreter.get_signature_runner(signature)
    return runner


class _ByIndex:
    """Runs a model's first graph as a signature runner does.

    Args:
        interpreter: of the model.
        inputs: the inputs' tensors by name.
        outputs: the outputs' tensors by name.
    """

    def __init__(self, interpreter: Any, inputs: Mapping[str, int], outputs: Mapping[str, int]) -> None:
        self._interpreter, self._inputs, self._outputs = interpreter, inputs, outputs

    def __call__(self, /, **inputs: NDArray[Any]) -> Arrays:
        interpreter = self._interpreter
        shapes = {each["index"]: tuple(each["shape"]) for each in interpreter.get_input_details()}
        resized = [name for name, values in inputs.items() if shapes[self._inputs[name]] != values.shape]
        for name in resized:
            interpreter.resize_tensor_input(self._inputs[name], inputs[name].shape)
        if resized:
            interpreter.allocate_tensors()
        for name, values in inputs.items():
            interpreter.set_tensor(self._inputs[name], values)
        interpreter.invoke()
        return {name: interpreter.get_tensor(index) for name, index in self._outputs.items()}


if __name__ == "__main__":
    serve(run_job)
