"""Verify: the artifact in the very runtime that ships, bit for bit what the reference Interpreter gives.

Also decides about batching. A resized model can keep a stale output size and write past its end, so the manifest
allows only what was proven here: runs of many rows, growing and shrinking, equal bit for bit to one row at a time.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import VerificationError
from litelambda.stages.convert import SIGNATURE
from litelambda.stages.interpreter import Reference, tensor_bytes
from litelambda.stages.probe import probe

BATCH_SIZES = (1, 2, 3, 8, 32)
LARGE_BATCH_SIZES = (64, 128, 256)
"""Proven as well where rows are small: there they score a file up to a fifth faster than 32."""
_MAX_LARGE_BATCH_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True)
class Verified:
    """What was proven of an artifact.

    Attributes:
        num_rows: rows on which the shipped runtime gave the reference's bits.
        batching: the manifest's `batching`.
    """

    num_rows: int
    batching: dict[str, Any]


def verify(artifact: bytes, rows: Mapping[str, NDArray[Any]], signature: str = SIGNATURE) -> Verified:
    """Hold the shipped runtime against the reference Interpreter.

    Args:
        artifact: the flatbuffer.
        rows: real rows per input, in the input's own dtype.
        signature: the entry point.

    Raises:
        VerificationError: the runtime crashed, refused the model, or gave other bits.
    """
    reference = Reference(artifact, signature)
    fixed = {tensor.shape[0] if tensor.shape else 1 for tensor in reference.inputs} - {-1}
    step = max(fixed, default=1)
    num_rows = len(next(iter(rows.values()))) // step * step
    rows = {name: values[:num_rows] for name, values in rows.items()}
    expected = reference.run(rows, step)
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        folder = Path(scratch)
        single = probe(artifact, signature, rows, [step] * (num_rows // step), folder)
        for name, values in expected.items():
            _compare(name, values, single[name])
        if fixed:
            return Verified(num_rows, {"dynamic": False, "reason": f"the model takes exactly {step} rows at once"})
        return Verified(num_rows, _prove_batching(artifact, signature, rows, expected, folder))


def _compare(name: str, expected: NDArray[Any], found: bytes) -> None:
    if found == tensor_bytes(expected):
        return
    if expected.dtype.kind == "O":
        raise VerificationError(f"output {name!r}: the shipped runtime gave other strings than the reference")
    if len(found) != expected.nbytes:
        raise VerificationError(f"output {name!r}: the shipped runtime gave {len(found)} bytes, not {expected.nbytes}")
    values = np.frombuffer(found, expected.dtype).reshape(expected.shape)
    rows = np.flatnonzero((values != expected).reshape(len(expected), -1).any(axis=1))
    largest = np.abs(values.astype(np.float64) - expected.astype(np.float64)).max()
    raise VerificationError(
        f"output {name!r} differs between the shipped runtime and the reference Interpreter on {len(rows)} of "
        f"{len(expected)} rows, first row {rows[0] if len(rows) else 0}, by {largest:g} at most"
    )


def _prove_batching(
    artifact: bytes,
    signature: str,
    rows: Mapping[str, NDArray[Any]],
    expected: Mapping[str, NDArray[Any]],
    folder: Path,
) -> dict[str, Any]:
    row_bytes = sum(values[:1].nbytes for values in rows.values())
    sizes = [*BATCH_SIZES, *(size for size in LARGE_BATCH_SIZES if size * row_bytes <= _MAX_LARGE_BATCH_BYTES)]
    runs = [*sizes, *sizes[-2::-1], sizes[-1], 1]  # growing, shrinking, and from one end to the other
    order = np.arange(sum(runs))
    try:
        together = probe(artifact, signature, rows, runs, folder)
    except VerificationError as error:
        return {"dynamic": False, "reason": str(error)}
    for name, values in expected.items():
        if together[name] != tensor_bytes(np.take(values, order, axis=0, mode="wrap")):
            return {"dynamic": False, "reason": f"output {name!r}: rows in a batch differ from rows one by one"}
    return {"dynamic": True, "verified_sizes": sizes}
