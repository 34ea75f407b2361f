"""Serves an artifact in a process of its own with the code that ships, and collects its outputs.

If the runtime corrupts its memory, that process dies and not the build. It does what a function does first, in the same
order: match the manifest's signature with the flatbuffer's, run the warm-up, then rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import FlatbufferSignature
from litelambda.common.child_process import ChildCrashError, ChildProcess
from litelambda.common.errors import VerificationError
from litelambda_serving.artifact import ARTIFACT_NAME, Artifact
from litelambda_serving.errors import ServingError
from litelambda_serving.manifest import Manifest
from litelambda_serving.servable import Servable
from litelambda_serving.tensor import Tensor, TensorSpec
from litelambda_serving.tensor.strings import to_wire

_PROCESS = ChildProcess()


class WarmUpError(VerificationError):
    """The model cannot compute with the values of its warm-up."""


@dataclass(frozen=True)
class ServedArtifact:
    """An artifact and the parts of its manifest that matter to the runtime.

    Attributes:
        artifact: the flatbuffer.
        signature: as in the manifest.
        warm_up: as in the manifest.
    """

    artifact: bytes
    signature: FlatbufferSignature
    warm_up: Mapping[str, Any] = field(default_factory=dict)

    def manifest(self, sizes: Sequence[int]) -> Manifest:
        """A manifest that allows batches of these sizes."""
        document = json.dumps(
            {
                "format_version": 1,  # runs are of the model's own values
                "model": "model",
                "version": 1,
                "artifact": ARTIFACT_NAME,
                "files": {ARTIFACT_NAME: {"sha256": "", "size_bytes": len(self.artifact)}},
                "default_signature": self.signature.key,
                "signatures": {self.signature.key: self.signature.to_json()},
                "batching": {"dynamic": max(sizes, default=1) > 1, "verified_sizes": sorted(set(sizes))},
                "warm_up": dict(self.warm_up),
            }
        )
        return Manifest.from_json(document.encode())


def serve_in_child(
    served: ServedArtifact, runs: Mapping[str, NDArray[Any]], sizes: Sequence[int]
) -> dict[str, list[bytes]]:
    """Serve an artifact in a child process.

    Args:
        served: the artifact.
        runs: per input, in its own dtype, one entry per run of one row; repeated from the start where `sizes` need
            more rows.
        sizes: the number of rows of each run.

    Returns:
        Per output the bytes of each run; see `reference.tensor_bytes`.

    Raises:
        WarmUpError: the first run fails.
        VerificationError: the model or a run was refused, or the process crashed.
        MemoryError: the process ran out of memory, which says nothing about the model.
    """
    try:
        return _PROCESS.call(serve, served, runs, sizes)
    except ServingError as error:
        raise VerificationError(str(error)) from error
    except ChildCrashError as error:
        ended = f"({error.ended}) at runs of {list(sizes)} rows"
        if error.for_memory:
            raise MemoryError(f"the shipped runtime ran out of memory {ended}") from error
        raise VerificationError(f"the runtime crashed {ended}") from error


def serve(served: ServedArtifact, runs: Mapping[str, NDArray[Any]], sizes: Sequence[int]) -> dict[str, list[bytes]]:
    """What `serve_in_child` calls in the child."""
    servable = Servable(Artifact(served.manifest(sizes), served.artifact), 1, min_batch=1)
    try:
        servable.warm_up()
    except ServingError as error:
        raise WarmUpError(str(error)) from error
    key = servable.manifest.default_signature
    signature = servable.manifest.signatures[key]
    collected: dict[str, list[bytes]] = {spec.name: [] for spec in signature.outputs}
    start = 0
    for size in sizes:
        order = np.arange(start, start + size)
        inputs = {
            spec.name: _tensor(np.take(runs[spec.name], order, axis=0, mode="wrap"), spec) for spec in signature.inputs
        }
        for name, output in servable.predict(key, inputs).items():
            collected[name].append(output.data if isinstance(output.data, bytes) else to_wire(output.data))
        start += size
    return collected


def _tensor(values: NDArray[Any], spec: TensorSpec) -> Tensor:
    """Values of several runs as one tensor: the rows of a batch, or the first run's where the input has no batch."""
    values = values if spec.batched else values[:1]
    data = values.ravel().tolist() if values.dtype.kind == "O" else values.tobytes()
    return Tensor(spec.dtype, (len(values), *spec.shape[1:]) if spec.batched else spec.shape, data)
