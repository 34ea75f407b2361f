"""Runs an artifact through `ai_edge_litert`'s own Interpreter: the reference that the shipped runtime must match."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import VerificationError, first_line
from litelambda.stages.backend import native_stderr_held_back
from litelambda.stages.flatbuffer import UNNAMED_SIGNATURE, Tensor, read_signatures
from serving.strings import to_wire

Arrays = dict[str, NDArray[Any]]


class Reference:
    """An artifact in the reference Interpreter, one signature of it.

    Attributes:
        inputs: tensors of the signature, in the order of the flatbuffer.
        outputs: the same for its outputs.
    """

    def __init__(self, artifact: bytes, signature: str = "predict", num_threads: int = 1) -> None:
        from ai_edge_litert.interpreter import Interpreter

        found = {each.key: each for each in read_signatures(artifact)}[signature]
        self.inputs, self.outputs = found.inputs, found.outputs
        with native_stderr_held_back(), _refusals():
            interpreter = Interpreter(model_content=artifact, num_threads=num_threads)
            interpreter.allocate_tensors()
        self._runner = (
            _Unnamed(interpreter) if signature == UNNAMED_SIGNATURE else interpreter.get_signature_runner(signature)
        )

    def run(self, inputs: Mapping[str, NDArray[Any]], batch: int) -> Arrays:
        """Run all rows, `batch` at a time, tensors as the artifact itself takes and gives them.

        Args:
            inputs: rows per input, in the input's own dtype.
            batch: rows per run; the Interpreter is resized to it.

        Raises:
            VerificationError: the Interpreter cannot run the model, or not so many rows at once.
        """
        num_rows = len(next(iter(inputs.values())))
        with _refusals():
            parts = [
                self._runner(**{name: rows[start : start + batch] for name, rows in inputs.items()})
                for start in range(0, num_rows, batch)
            ]
        return {output.name: np.concatenate([part[output.name] for part in parts]) for output in self.outputs}

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


@contextmanager
def _refusals() -> Iterator[None]:
    """Turn what the Interpreter raises into an error of ours."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        reason = first_line(error)
        raise VerificationError(f"the reference Interpreter cannot run the model: {reason}") from error


class _Unnamed:
    """Runs a model without signatures as a signature runner does, by the names of its tensors."""

    def __init__(self, interpreter: Any) -> None:
        self._interpreter = interpreter

    def __call__(self, **inputs: NDArray[Any]) -> Arrays:
        interpreter = self._interpreter
        details = {each["name"]: each for each in interpreter.get_input_details()}
        resized = [name for name, values in inputs.items() if tuple(details[name]["shape"]) != values.shape]
        for name in resized:
            interpreter.resize_tensor_input(details[name]["index"], inputs[name].shape)
        if resized:
            interpreter.allocate_tensors()
        for name, values in inputs.items():
            interpreter.set_tensor(details[name]["index"], values)
        interpreter.invoke()
        return {each["name"]: interpreter.get_tensor(each["index"]) for each in interpreter.get_output_details()}


def tensor_bytes(values: NDArray[Any]) -> bytes:
    """The values as the shipped runtime gives them: raw bytes, and V2's binary form of strings."""
    return to_wire(values.ravel().tolist()) if values.dtype.kind == "O" else values.tobytes()


def to_codes(values: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Quantize real values for an integer tensor; for a float one only the dtype is changed."""
    if tensor.dtype == "string":
        return values
    dtype = np.dtype(tensor.dtype)
    if tensor.quantization is None or dtype.kind == "f":
        return values.astype(dtype)
    scale, zero_point = tensor.quantization
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def to_reals(codes: NDArray[Any], tensor: Tensor) -> NDArray[Any]:
    """Turn an integer tensor's codes into real values; others come back as they are."""
    if tensor.quantization is None or codes.dtype.kind == "f":
        return codes
    scale, zero_point = tensor.quantization
    return (codes.astype(np.float32) - np.float32(zero_point)) * np.float32(scale)
