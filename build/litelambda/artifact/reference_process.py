"""The reference Interpreter in a process of its own: a flatbuffer that crashes it ends that process, not the command.

The process is kept for the next call, and the model that it opened last stays open until it is asked for another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import UNNAMED_SIGNATURE
from litelambda.artifact.flatbuffer_check import Inspected, inspect
from litelambda.common.arrays import Arrays
from litelambda.common.child_process import ChildCrashError, ChildProcess
from litelambda.common.errors import ConversionError, MemoryShortageError, VerificationError, first_line

P = ParamSpec("P")
T = TypeVar("T")

_PROCESS = ChildProcess()


@dataclass(frozen=True)
class ReferenceModel:
    """A flatbuffer to open in the Interpreter.

    Attributes:
        path: its file.
        signature: its entry point.
        num_threads: of the Interpreter.
    """

    path: Path
    signature: str
    num_threads: int


def inspect_in_child(model: Path) -> Inspected:
    """Read a flatbuffer from elsewhere without running it.

    Raises:
        ConversionError: it is damaged, or crashes its reader.
    """
    try:
        return _ask(inspect, model)
    except (ConversionError, VerificationError) as error:
        raise ConversionError(f"{model} is damaged or cut short: {error}") from error


def open_in_child(model: ReferenceModel) -> None:
    """Open a flatbuffer in the Interpreter and allocate its tensors.

    Raises:
        VerificationError: the Interpreter refuses it, or crashed.
    """
    _ask(_open, model)


def run_in_child(
    model: ReferenceModel, rows: Mapping[str, NDArray[Any]], outputs: tuple[str, ...], batch: int | None
) -> Arrays:
    """Run rows, `batch` at a time; where it is None, each entry of the arrays is the whole input of a run.

    Raises:
        VerificationError: the Interpreter cannot run the model, or not so many rows at once, or crashed.
    """
    return _ask(_run, model, rows, outputs, batch)


def _ask(function: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
    try:
        return _PROCESS.call(function, *arguments, **keywords)
    except ChildCrashError as error:
        if error.for_memory:
            raise MemoryShortageError(
                "the reference Interpreter ran out of memory: use a machine with more memory"
            ) from error
        raise VerificationError(f"the reference Interpreter crashed ({error.ended}) on the model") from error


class _Opened:
    """The model that the child has open."""

    key: tuple[ReferenceModel, int] | None = None
    runner: Callable[..., Mapping[str, NDArray[Any]]] | None = None


def _open(model: ReferenceModel) -> None:
    with _refusals_explained():
        _runner(model)


def _run(
    model: ReferenceModel, rows: Mapping[str, NDArray[Any]], outputs: tuple[str, ...], batch: int | None
) -> Arrays:
    num_rows, step = len(next(iter(rows.values()))), batch or 1
    parts = []
    with _refusals_explained():
        runner = _runner(model)
        for start in range(0, num_rows, step):
            given = {name: all_[start : start + step] if batch else all_[start] for name, all_ in rows.items()}
            parts.append({name: np.array(values) for name, values in runner(**given).items()})
        join = np.concatenate if batch else np.stack
        return {name: join([part[name] for part in parts]) for name in outputs}


@contextmanager
def _refusals_explained() -> Iterator[None]:
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise VerificationError(f"the reference Interpreter cannot run the model: {first_line(error)}") from error


def _runner(model: ReferenceModel) -> Callable[..., Mapping[str, NDArray[Any]]]:
    key = (model, model.path.stat().st_mtime_ns)
    if _Opened.runner is None or _Opened.key != key:
        from ai_edge_litert.interpreter import Interpreter

        _Opened.key = _Opened.runner = None  # two models at once need not fit into memory
        interpreter = Interpreter(model_path=str(model.path), num_threads=model.num_threads)
        interpreter.allocate_tensors()
        _Opened.runner = _open_signature(interpreter, model.signature)
        _Opened.key = key
    return _Opened.runner


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
