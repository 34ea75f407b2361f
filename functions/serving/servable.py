"""One version of a model in memory: rows in, rows out, however many.

Knows the runtime and the manifest; knows no protocol and no other version.
"""

from __future__ import annotations

from itertools import chain
from math import inf
from time import monotonic, perf_counter_ns, time

from serving.errors import ArtifactError, PayloadTooLargeError
from serving.litert import CompiledModel
from serving.tensor import Tensor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from serving.artifact import Artifact
    from serving.manifest import Manifest, SignatureSpec
    from serving.tensor import TensorSpec

__all__ = ["Servable", "Statistics", "size_in_memory"]

# Below this many rows at once, resizing a model costs more than running its rows one by one.
_MIN_BATCH = 8

# The flatbuffer, XNNPACK's repacked weights, and activations: MobileNetV2 (3.9 MB) takes 7.7 MB beside its file.
_MEMORY_PER_ARTIFACT_BYTE = 3
_MEMORY_PER_MODEL = 512 * 1024


def size_in_memory(artifact_bytes: int) -> int:
    """Estimated bytes that a model takes once it is compiled, its file included."""
    return artifact_bytes * _MEMORY_PER_ARTIFACT_BYTE + _MEMORY_PER_MODEL


class Statistics:
    """What a servable has done in this process.

    Attributes:
        requests: predictions that were answered.
        failures: predictions that the runtime failed.
        rows: rows in them.
        runs: runs of the runtime that they took.
        run_ns: time in those runs.
        input_ns: time from the requests' beginning to their run.
        output_ns: time from their run to their answer.
        last_ms: time of the last one, in milliseconds since 1970.
    """

    __slots__ = (
        *("failures", "input_ns", "last_ms", "output_ns", "requests", "rows", "run_ns", "runs"),
        *("_run_began", "_run_ended"),
    )

    def __init__(self) -> None:
        self.requests = self.failures = self.rows = self.runs = self.last_ms = 0
        self.run_ns = self.input_ns = self.output_ns = self._run_began = self._run_ended = 0

    def add_run(self, began_ns: int, rows: int) -> None:
        """Count a prediction that has just worked.

        Args:
            began_ns: `time.perf_counter_ns()` of the beginning of its first run.
            rows: in it.
        """
        self._run_began, self._run_ended = began_ns, perf_counter_ns()
        self.run_ns += self._run_ended - began_ns
        self.requests += 1
        self.rows += rows
        self.last_ms = int(time() * 1000)

    def add_request(self, began_ns: int) -> None:
        """Count the time that the request of the last run has taken before it and after it, from `began_ns` to now."""
        self.input_ns += self._run_began - began_ns
        self.output_ns += perf_counter_ns() - self._run_ended


class Servable:
    """One version of a model, loaded and compiled.

    Attributes:
        manifest: what is known of it.
        statistics: what it has done.
        memory_bytes: estimate of what it holds.
        used: when it last answered, in the repository's count of requests.
        notes: fields for the log line of a request it answered.
    """

    notes: Mapping[str, Any] | None = None

    def __init__(self, artifact: Artifact, num_threads: int) -> None:
        """Compile an artifact and check that the flatbuffer has what its manifest promises.

        Raises:
            LiteRtError: the runtime refuses the flatbuffer.
            ArtifactError: a signature of the manifest is not in the flatbuffer, or has other tensors.
        """
        self.manifest: Manifest = artifact.manifest
        self.statistics = Statistics()
        self.memory_bytes = size_in_memory(len(memoryview(artifact.model)))
        self.used = 0
        self._model = CompiledModel(artifact.model, num_threads=num_threads)
        self._batch_sizes = [size for size in reversed(self.manifest.batch_sizes) if size >= _MIN_BATCH]
        self._signatures = {key: self._matched(key, spec) for key, spec in self.manifest.signatures.items()}

    def warm_up(self) -> None:
        """Run the default signature on zeros and empty strings: no request pays for the first run's allocations."""
        key = self.manifest.default_signature
        inputs = self._model.signatures[key].inputs
        self._model.run(key, [bytes(s.row_bytes) if s.dtype.itemsize else [b""] * s.row_values for s in inputs])

    def predict(self, signature_key: str, inputs: Mapping[str, Tensor], deadline: float = inf) -> dict[str, Tensor]:
        """Run a signature on any number of rows.

        Args:
            signature_key: one of the manifest's signatures.
            inputs: a tensor for every input of the signature; batched ones share their number of rows.
            deadline: `time.monotonic()` from which on the rows that are left are given up.

        Returns:
            The outputs by name, in the signature's order; batched ones with as many rows as came in.

        Raises:
            PayloadTooLargeError: more rows than the deadline allows.
            LiteRtError: the runtime failed.
        """
        signature = self._signatures[signature_key]
        tensors = [inputs[spec.name] for spec in signature.inputs]
        rows = next((t.shape[0] for t, s in zip(tensors, signature.inputs, strict=True) if s.batched), 1)
        statistics = self.statistics
        statistics.failures += 1  # until it is known to have worked
        started = perf_counter_ns()
        if rows == 1:
            outputs = self._model.run(signature_key, [tensor.data for tensor in tensors])
            statistics.runs += 1
        else:
            outputs = self._run_rows(signature_key, tensors, rows, deadline)
        statistics.failures -= 1
        statistics.add_run(started, rows)
        return {
            spec.name: Tensor(spec.dtype, (rows, *spec.shape[1:]) if spec.batched else spec.shape, data)
            for spec, data in zip(signature.outputs, outputs, strict=True)
        }

    def _run_rows(self, signature_key: str, tensors: Sequence[Tensor], rows: int, deadline: float) -> list[Any]:
        """Run many rows in the largest batches that were proven safe, what is left of them one by one."""
        signature = self._signatures[signature_key]
        # What is cut into rows: lists of strings, and bytes without a copy.
        views = [tensor.data if type(tensor.data) is list else memoryview(tensor.data) for tensor in tensors]
        steps = [spec.row_bytes or spec.row_values for spec in signature.inputs]
        parts: list[list[Any]] = []
        start = 0
        while start < rows:
            if monotonic() > deadline:
                raise PayloadTooLargeError(
                    f"{rows} rows take longer than a request may: {start} were done. Send fewer rows at a time, "
                    "or score the file in batch"
                )
            size = next((size for size in self._batch_sizes if size <= rows - start), 1)
            chunk = [
                view[start * step : (start + size) * step] if spec.batched else view
                for spec, view, step in zip(signature.inputs, views, steps, strict=True)
            ]
            parts.append(self._model.run(signature_key, chunk, size))
            start += size
        self.statistics.runs += len(parts)
        return [
            _joined(column) if spec.batched else column[0]
            for spec, column in zip(signature.outputs, zip(*parts, strict=True), strict=True)
        ]

    def _matched(self, key: str, promised: SignatureSpec) -> SignatureSpec:
        """A signature of the manifest in the runtime's order of tensors, which need not be the file's."""
        actual = self._model.signatures.get(key)
        if actual is None:
            raise ArtifactError(f"the manifest names signature {key!r}, the flatbuffer has none of that name")
        return type(promised)(
            self._in_order(key, promised.inputs, actual.inputs), self._in_order(key, promised.outputs, actual.outputs)
        )

    def _in_order(
        self, key: str, promised: tuple[TensorSpec, ...], actual: tuple[TensorSpec, ...]
    ) -> tuple[TensorSpec, ...]:
        by_name = {spec.name: spec for spec in promised}
        ordered = tuple(by_name[spec.name] for spec in actual if spec.name in by_name)
        if len(ordered) != len(promised) or list(map(self._run_as, ordered)) != list(map(self._run_as, actual)):
            raise ArtifactError(
                f"signature {key!r}: the manifest says {list(promised)}, the flatbuffer has {list(actual)}"
            )
        return ordered

    def _run_as(self, spec: TensorSpec) -> str:
        """A tensor as it is run: where rows go one by one, a batch of one and a batch of any size are the same."""
        shape = (1, *spec.shape[1:]) if spec.batched and self.manifest.batch_sizes == (1,) else spec.shape
        return f"{spec.name}: {spec.dtype.name}{list(shape)}"


def _joined(parts: Sequence[Any]) -> Any:
    """The rows of several runs: bytes, or lists of strings."""
    return b"".join(parts) if type(parts[0]) is bytes else list(chain.from_iterable(parts))
