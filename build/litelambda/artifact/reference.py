"""Runs an artifact through `ai_edge_litert`'s own Interpreter: the reference that the shipped runtime must match.

The Interpreter runs in a child, see `reference_process`: a flatbuffer that crashes it does not end the command.
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
from litelambda.artifact.reference_process import ReferenceModel, open_in_child, run_in_child
from litelambda.common.arrays import Arrays
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
        path = artifact if isinstance(artifact, Path) else self._folder / "model.tflite"
        if not isinstance(artifact, Path):
            path.write_bytes(artifact)
        self._model = ReferenceModel(path.absolute(), signature, num_threads)
        open_in_child(self._model)
        found = {each.key: each for each in read_signatures(artifact)}[signature]
        self.inputs, self.outputs = found.inputs, found.outputs

    def run(self, inputs: Mapping[str, NDArray[Any]], batch: int | None) -> Arrays:
        """Run all rows, `batch` at a time, in the dtypes of the artifact itself.

        Args:
            inputs: rows per input, in the input's own dtype.
            batch: rows per run; the Interpreter is resized to it. None where each entry is the whole input of a run,
                and each entry of the result the whole output of one.

        Raises:
            VerificationError: the Interpreter cannot run the model, or not so many rows at once.
        """
        names = tuple(tensor.name for tensor in self.outputs)
        return run_in_child(self._model, inputs, names, batch)

    def run_each(self, inputs: Mapping[str, NDArray[Any]]) -> Arrays:
        """Run real values, each entry the whole input of a run, with a batch dimension of its own.

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
        """`batch` if rows run together give the same bits as rows run one by one, else 1."""
        some = {name: rows[:batch] for name, rows in inputs.items()}
        single = self.run_real(some, 1)
        try:
            together = self.run_real(some, batch)
        except VerificationError:  # a shape in the graph is static, for one row
            return 1
        return batch if all(np.array_equal(single[name], together[name]) for name in single) else 1


def tensor_bytes(values: NDArray[Any]) -> bytes:
    """Values as the shipped runtime returns them: raw bytes, and the binary form of V2 for strings."""
    return to_wire(values.ravel().tolist()) if values.dtype.kind == "O" else values.tobytes()


def to_codes(values: NDArray[Any], tensor: FlatbufferTensor) -> NDArray[Any]:
    """Quantize real values for an integer tensor; for a float tensor only the dtype changes.

    >>> pixels = FlatbufferTensor("image", "uint8", (-1, 3), quantization=(1 / 255, 0))
    >>> to_codes(np.array([0.0, 0.6, 2.0]), pixels)
    array([  0, 153, 255], dtype=uint8)
    """
    if tensor.dtype == "string":
        return values
    dtype = np.dtype(tensor.dtype)
    if tensor.quantization is None or dtype.kind == "f":
        return values.astype(dtype)
    scale, zero_point = tensor.quantization
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def to_reals(codes: NDArray[Any], tensor: FlatbufferTensor) -> NDArray[Any]:
    """Dequantize the codes of an integer tensor; values of other tensors are returned as they are.

    >>> scores = FlatbufferTensor("scores", "int8", (-1, 2), quantization=(0.5, -3))
    >>> to_reals(np.array([-3, 1], np.int8), scores).tolist()
    [0.0, 2.0]
    """
    if tensor.quantization is None or codes.dtype.kind == "f":
        return codes
    scale, zero_point = tensor.quantization
    return (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
