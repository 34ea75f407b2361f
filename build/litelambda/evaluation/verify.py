"""Verify: the artifact as it will be served gives bit for bit what the reference Interpreter gives.

It does what a function does first: the warm-up, one row, each size of a batch. It also decides on batches: a resized
model can keep a stale output size and write past its end, so the manifest allows only sizes that were proven, growing
and shrinking, to be equal bit for bit to one row at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import (
    SIGNATURE,
    FlatbufferSignature,
    FlatbufferTensor,
    read_signatures,
    with_open_batch,
)
from litelambda.artifact.reference import Reference, tensor_bytes
from litelambda.artifact.serving_process import ServedArtifact, WarmUpError, serve_in_child
from litelambda.common.errors import VerificationError

BATCH_SIZES = (1, 2, 3, 8, 32)
LARGE_BATCH_SIZES = (64, 128, 256)
"""Proven as well where rows are small: batch jobs then run up to a fifth faster than with 32."""
_MAX_LARGE_BATCH_BYTES = 4 * 1024 * 1024
_MAX_WARM_UP_VALUES = 4096
_WARM_UP_ROWS = 8

Runs = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Verified:
    """Proven properties of an artifact.

    Attributes:
        num_rows: rows on which it gave the reference's bits.
        batching: the manifest's `batching`.
        signature: the manifest's.
        warm_up: the manifest's: values for the first run, where zeros do not work.
    """

    num_rows: int
    batching: dict[str, Any]
    signature: FlatbufferSignature
    warm_up: dict[str, Any] = field(default_factory=dict)


def verify(artifact: bytes, rows: Mapping[str, NDArray[Any]], key: str = SIGNATURE) -> Verified:
    """Compare the shipped runtime with the reference Interpreter.

    Args:
        artifact: the flatbuffer.
        rows: real rows per input, in the input's own dtype; of an input without a batch, one whole value after the
            other.
        key: the entry point.

    Raises:
        VerificationError: the runtime crashed, refused the model or every row, or gave other bits.
    """
    own = next(each for each in read_signatures(artifact) if each.key == key)
    reference = Reference(artifact, key)
    try:
        runs, expected = answered(reference, runs_of(own, rows))
    except ValueError as error:  # arrays of different shapes cannot be joined
        raise VerificationError(
            f"an output has another shape in each run: use static sizes in the model ({error})"
        ) from error
    num_runs = len(next(iter(runs.values())))
    served, single = _first_runs(ServedArtifact(artifact, with_open_batch(own)), runs, num_runs)
    for name, values in expected.items():
        _compare(name, values, b"".join(single[name]))
    num_rows = num_runs * max(_rows_of_a_run(own), 1)
    batching = _why_not(own) or _prove_batching(served, reference, runs)
    return Verified(num_rows, batching, served.signature, dict(served.warm_up))


def runs_of(signature: FlatbufferSignature, rows: Mapping[str, NDArray[Any]]) -> Runs:
    """Rows grouped into runs: as many per run as the inputs take, one where the batch is open."""
    steps = {tensor.name: _step(tensor) for tensor in signature.inputs}
    count = min(len(rows[name]) // step for name, step in steps.items())
    runs = {}
    for tensor in signature.inputs:
        step = steps[tensor.name]
        shape = (step, *rows[tensor.name].shape[1:]) if tensor.shape else ()
        runs[tensor.name] = rows[tensor.name][: count * step].reshape((count, *shape))
    return runs


def _step(tensor: FlatbufferTensor) -> int:
    return max(tensor.shape[0], 1) if tensor.shape else 1


def _rows_of_a_run(signature: FlatbufferSignature) -> int:
    """Rows per run; 0 where its tensors do not agree."""
    sizes = {_step(tensor) if tensor.shape else 0 for tensor in (*signature.inputs, *signature.outputs)}
    return sizes.pop() if len(sizes) == 1 else 0


def answered(reference: Reference, runs: Runs) -> tuple[Runs, Runs]:
    """The runs that the reference can compute, and its outputs: random rows may divide by zero."""
    try:
        return runs, reference.run(runs, None)
    except VerificationError as error:
        refusal = error
    answered, answers = [], []
    for index in range(len(next(iter(runs.values())))):
        try:
            answers.append(reference.run({name: values[index : index + 1] for name, values in runs.items()}, None))
            answered.append(index)
        except VerificationError:
            continue
    if not answers:
        raise refusal
    joined = {name: np.concatenate([answer[name] for answer in answers]) for name in answers[0]}
    return {name: values[answered] for name, values in runs.items()}, joined


def _first_runs(served: ServedArtifact, runs: Runs, num_runs: int) -> tuple[ServedArtifact, dict[str, list[bytes]]]:
    """Serve each run alone, after a warm-up on zeros, or on the first values that the model can compute with."""
    refusal: WarmUpError | None = None
    for warm_up in _warm_ups(served.signature, runs):
        candidate = ServedArtifact(served.artifact, served.signature, warm_up)
        try:
            return candidate, serve_in_child(candidate, runs, [1] * num_runs)
        except WarmUpError as error:
            refusal = refusal or error
    raise VerificationError(
        f"the model fails on zeros, on ones and on its own rows of up to {_MAX_WARM_UP_VALUES} values, so a function "
        f"could not start with it ({refusal})"
    )


def _warm_ups(signature: FlatbufferSignature, runs: Runs) -> Iterator[dict[str, Any]]:
    """Candidates for the manifest's `warm_up`, the shortest first."""
    yield {}
    numbers = [tensor for tensor in signature.inputs if tensor.dtype != "string"]
    yield {tensor.name: tensor.dtype == "bool" or 1 for tensor in numbers}
    if sum(runs[tensor.name][0].size for tensor in numbers) <= _MAX_WARM_UP_VALUES:
        for index in range(min(_WARM_UP_ROWS, len(next(iter(runs.values()))))):
            yield {tensor.name: runs[tensor.name][index].ravel().tolist() for tensor in numbers}


def _compare(name: str, expected: NDArray[Any], found: bytes) -> None:
    if found == tensor_bytes(expected):
        return
    if expected.dtype.kind == "O":
        raise VerificationError(f"output {name!r}: the shipped runtime returned other strings than the reference")
    if len(found) != expected.nbytes:
        raise VerificationError(
            f"output {name!r}: the shipped runtime returned {len(found)} bytes, not {expected.nbytes}"
        )
    values = np.frombuffer(found, expected.dtype).reshape(expected.shape)
    rows = np.flatnonzero((values != expected).reshape(len(expected), -1).any(axis=1))
    largest = np.abs(values.astype(np.float64) - expected.astype(np.float64)).max()
    raise VerificationError(
        f"output {name!r} differs between the shipped runtime and the reference Interpreter on {len(rows)} of "
        f"{len(expected)} rows, first row {rows[0] if len(rows) else 0}, by {largest:g} at most"
    )


def _why_not(signature: FlatbufferSignature) -> dict[str, Any] | None:
    """The manifest's `batching` of a model whose inputs have no open batch."""
    if any(tensor.shape[:1] == (-1,) for tensor in signature.inputs):
        return None
    rows = _rows_of_a_run(signature)
    reason = (
        f"the model takes exactly {rows} row{'s' if rows > 1 else ''} at once" if rows else "the model has no batch"
    )
    return {"dynamic": False, "reason": reason}


def _prove_batching(served: ServedArtifact, reference: Reference, runs: Runs) -> dict[str, Any]:
    # Inputs without a batch are the same for all rows of a batch.
    open_inputs = {tensor.name for tensor in served.signature.inputs if tensor.shape[:1] == (-1,)}
    runs = {name: values if name in open_inputs else values[[0] * len(values)] for name, values in runs.items()}
    sizes = _sizes(served.signature, sum(runs[name][:1].nbytes for name in open_inputs))
    order = [*sizes, *sizes[-2::-1], sizes[-1], 1]  # growing, shrinking, and from one end to the other
    try:
        together = serve_in_child(served, runs, order)
        for tensor in served.signature.outputs:
            expected = _batches(tensor, reference, runs, order)
            if not all(mine == right for mine, right in zip(together[tensor.name], expected, strict=True)):
                reason = f"output {tensor.name!r}: rows in a batch differ from rows one by one"
                return {"dynamic": False, "reason": reason}
    except VerificationError as error:
        return {"dynamic": False, "reason": str(error)}
    return {"dynamic": True, "verified_sizes": sizes}


def _sizes(signature: FlatbufferSignature, row_bytes: int) -> list[int]:
    """Sizes to prove: every small one where an output depends on all rows, as requests cannot be split then."""
    small: Sequence[int] = BATCH_SIZES
    if any(tensor.shape[:1] != (-1,) and not tensor.constant for tensor in signature.outputs):
        small = range(1, BATCH_SIZES[-1] + 1)
    return [*small, *(size for size in LARGE_BATCH_SIZES if size * row_bytes <= _MAX_LARGE_BATCH_BYTES)]


def _batches(tensor: FlatbufferTensor, reference: Reference, runs: Runs, sizes: Sequence[int]) -> Iterator[bytes]:
    """An output in runs of these sizes: one row per row, or the reference's output for all rows together."""
    single = reference.run(runs, None)[tensor.name] if tensor.constant or tensor.shape[:1] == (-1,) else None
    start = 0
    for size in sizes:
        order = np.arange(start, start + size)
        start += size
        if single is None:
            some = {name: np.take(values, order, axis=0, mode="wrap") for name, values in runs.items()}
            open_inputs = {each.name for each in reference.inputs if each.shape[:1] == (-1,)}
            given = {
                name: values.reshape((1, size, *values.shape[2:])) if name in open_inputs else values[:1]
                for name, values in some.items()
            }
            yield tensor_bytes(reference.run(given, None)[tensor.name])
        else:
            yield tensor_bytes(single[0] if tensor.constant else np.take(single, order, axis=0, mode="wrap"))
