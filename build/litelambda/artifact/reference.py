"""Runs an artifact through `ai_edge_litert`'s own Interpreter: the reference that the shipped runtime must match.

The Interpreter itself is in a child, see `interpreter_process`: no flatbuffer can end the command.
"""

from __future__ import annotations

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import FlatbufferTensor, read_signatures
from litelambda.artifact.reference_process import open_in_child, run_in_child
from litelambda.common.array_files import Arrays
from litelambda.common.errors import VerificationError
from litelambda_serving.tensor.strings import to_wire


class Reference:
    """An artifact in the reference Interpreter, one signature of it.

    Attributes:
        inputs: tensors of the signature, in the order of the flatbuffer.
        outputs: the same for its outputs.

    Args:
        artifact: the flatbuffer, or the file that holds it.
        signature: its entry point.
        num_threads: of the Interpreter.

    Raises:
        VerificationError: the Interpreter refuses the model, or crashed.
    """

    def __init__(self, artifact: bytes | Path, signature: str = "predict", num_threads: int = 1) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="litelambda-"))
        weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        self._model = artifact if isinstance(artifact, Path) else self._folder / "model.tflite"
        if not isinstance(artifact, Path):
            self._model.write_bytes(artifact)
        self._signature, self._num_threads = signature, num_threads
        open_in_child(self._model, signature, num_threads, self._folder)
        found = {each.key: each for each in read_signatures(artifact)}[signature]
        self.inputs, self.outputs = found.inputs, found.outputs

    def run(self, inputs: Mapping[str, NDArray[Any]], batch: int | None) -> Arrays:
        """Run all rows, `batch` at a time, tensors as the artifact itself takes and gives them.

        Args:
            inputs: rows per input, in the input's own dtype.
            batch: rows per run; the Interpreter is resized to it. None where each entry is the whole input of a run:
                then each entry of the result is the whole output of one.

        Raises:
            VerificationError: the Interpreter cannot run the model, or not so many rows at once.
        """
        names = tuple(tensor.name for tensor in self.outputs)
        return run_in_child(self._model, self._signature, self._num_threads, inputs, names, batch, self._folder)

    def run_each(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run real values, of which each entry is the whole input of a run: its batch is part of its shape.

        Returns:
            Real values, an entry per run.
        """
        outputs = self.run({tensor.name: to_codes(inputs[tensor.name], tensor) for tensor in self.inputs}, None)
        return {tensor.name: to_reals(outputs[tensor.name], tensor) for tensor in self.outputs}

    def run_real(self, inputs: Mapping[str, NDArray[Any]], batch: int) -> Arrays:
        """Run all rows on real values: quantized on the way in and back on the way out where the edges are integers."""
        raw = {tensor.name: to_codes(inputs[tensor.name], tensor) for tensor in self.inputs}
        outputs = self.run(raw, batch)
        return {tensor.name: to_reals(outputs[tensor.name], tensor) for tensor in self.outputs}

    def safe_batch(self, inputs: Mapping[str, NDArray[Any]], batch: int) -> int:
        """`batch` where running so many rows at once gives the bits that one at a time gives, else 1."""
        some = {name: rows[:batch] for name, rows in inputs.items()}
        single = self.run_real(some, 1)
        try:
            together = self.run_real(some, batch)
        except VerificationError:  # a shape in the graph is fixed to one row
            return 1
        return batch if all(np.array_equal(single[name], together[name]) for name in single) else 1


def tensor_bytes(values: NDArray[Any]) -> bytes:
    """The values as the shipped runtime gives them: raw bytes, and V2's binary form of strings."""
    return to_wire(values.ravel().tolist()) if values.dtype.kind == "O" else values.tobytes()


def to_codes(values: NDArray[Any], tensor: FlatbufferTensor) -> NDArray[Any]:
    """Quantize real values for an integer tensor; for a float one only the dtype is changed."""
    if tensor.dtype == "string":
        return values
    dtype = np.dtype(tensor.dtype)
    if tensor.quantization is None or dtype.kind == "f":
        return values.astype(dtype)
    scale, zero_point = tensor.quantization
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def to_reals(codes: NDArray[Any], tensor: FlatbufferTensor) -> NDArray[Any]:
    """Turn an integer tensor's codes into real values; others come back as they are."""
    if tensor.quantization is None or codes.dtype.kind == "f":
        return codes
    scale, zero_point = tensor.quantization
    return (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
