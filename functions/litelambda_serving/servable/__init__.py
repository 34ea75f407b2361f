"""One version of a model in memory: any number of rows in, as many out.

Knows the runtime and the manifest; does not know protocols or other versions.
"""

from __future__ import annotations

from _thread import _local
from itertools import chain
from math import inf
from time import monotonic, perf_counter_ns, time

from litelambda_serving.errors import (
    ArtifactError,
    LiteRtError,
    PayloadTooLargeError,
    RequestError,
    ServingError,
    TensorError,
)
from litelambda_serving.litert import CompiledModel
from litelambda_serving.tensor import Tensor, pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from litelambda_serving.artifact import Artifact
    from litelambda_serving.drift import DriftCounter
    from litelambda_serving.litert import Signature
    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.servable.copies import Copies
    from litelambda_serving.tensor import TensorSpec

__all__ = ["Binding", "Servable", "Statistics", "size_in_memory", "warm_up_inputs"]

# Below this many rows at once, resizing a model costs more than running its rows one by one.
_MIN_BATCH = 8

# The flatbuffer, XNNPACK's repacked weights, and activations: MobileNetV2 (3.9 MB) takes 7.7 MB more than its file.
_MEMORY_PER_ARTIFACT_BYTE = 3
_MEMORY_PER_MODEL = 512 * 1024


def size_in_memory(artifact_bytes: int) -> int:
    """Estimated bytes that a model takes once it is compiled, its file included.

    >>> size_in_memory(4_000_000)
    12524288
    """
    return artifact_bytes * _MEMORY_PER_ARTIFACT_BYTE + _MEMORY_PER_MODEL


class Statistics:
    """What a servable has done in this process, in any of its threads.

    No counter loses what another thread adds: none of them is read before a call and written after it.

    Attributes:
        requests: predictions that were answered.
        failures: predictions that the runtime failed.
        rows: rows in them.
        runs: runs of the runtime that they took.
        run_ns: time in those runs.
        input_ns: time from the requests' beginning to their run.
        output_ns: time from their run to their answer.
        last_ms: time of the last one, in milliseconds since 1970.
        loaded: `time.perf_counter_ns()` when its load began, its files were there, and it was ready; zeros for INIT's.
    """

    __slots__ = (
        *("failures", "input_ns", "last_ms", "loaded", "output_ns", "requests", "rows", "run_ns", "runs"),
        "_last_run",
    )

    def __init__(self) -> None:
        self.requests = self.failures = self.rows = self.runs = self.last_ms = 0
        self.run_ns = self.input_ns = self.output_ns = 0
        self.loaded = (0, 0, 0)
        self._last_run = _local()  # when it began and ended: each thread's own

    def add_run(self, began_ns: int, rows: int) -> None:
        """Count a prediction that has just worked.

        Args:
            began_ns: `time.perf_counter_ns()` of the beginning of its first run.
            rows: in it.
        """
        last_run, ended = self._last_run, perf_counter_ns()
        last_run.began, last_run.ended = began_ns, ended
        self.run_ns += ended - began_ns
        self.requests += 1
        self.rows += rows
        self.last_ms = int(time() * 1000)

    def extend_run(self) -> None:
        """Count what ran since the prediction, an explanation, as part of its run."""
        last_run = self._last_run
        before, last_run.ended = last_run.ended, perf_counter_ns()
        longer = last_run.ended - before
        self.run_ns += longer

    def add_stream(self, began_ns: int, first_run_ns: int, run_ns: int, rows: int) -> None:
        """Count a prediction whose answer was made while it was sent.

        Args:
            began_ns: `time.perf_counter_ns()` of the request's beginning.
            first_run_ns: that of its first run.
            run_ns: time in its runs.
            rows: in it.
        """
        self.add_run(perf_counter_ns() - run_ns, rows)
        self.input_ns += first_run_ns - began_ns
        self.output_ns += perf_counter_ns() - first_run_ns - run_ns

    def add_request(self, began_ns: int) -> tuple[int, ...]:
        """Count the time that the request of the last run has taken before it and after it, from `began_ns` to now.

        Returns:
            When that run began and ended, followed by `loaded`.
        """
        last_run, now = self._last_run, perf_counter_ns()
        run_began, run_ended = last_run.began, last_run.ended
        self.input_ns += run_began - began_ns
        self.output_ns += now - run_ended
        return run_began, run_ended, *self.loaded


def warm_up_inputs(manifest: Manifest, key: str, inputs: Sequence[TensorSpec]) -> list[Any]:
    """Values of one row that a signature can compute with: zeros and empty strings where the manifest has no others.

    Raises:
        ArtifactError: the manifest's do not fit the inputs.
    """
    values = manifest.warm_up if key == manifest.default_signature else {}
    data: list[Any] = []
    for spec in inputs:
        if spec.name not in values:
            data.append(bytes(spec.row_bytes) if spec.dtype.itemsize else [b""] * spec.row_values)
            continue
        value = values[spec.name]
        flat = value if type(value) is list else [value] * spec.row_values
        try:
            data.append(pack(flat, spec, (spec.row_values,)).data)
        except TensorError as error:
            raise ArtifactError(f"manifest field warm_up: {error}") from error
    return data


class Binding:
    """A signature of a manifest, matched with the flatbuffer's of that name, whose tensors may be in another order.

    Attributes:
        inputs: the manifest's inputs, in the runtime's order.
        input_places: for each of the runtime's inputs, which of the manifest's it is.
        outputs: the manifest's outputs, in its order.
        output_places: for each of them, which of the runtime's it is.
        limited: the inputs whose values are checked before a run.
        joint_output: name of an output that depends on all rows of a run together; "" without one.
    """

    __slots__ = ("input_places", "inputs", "joint_output", "limited", "output_places", "outputs")

    def __init__(self, promised: SignatureSpec, actual: Signature, *, one_by_one: bool) -> None:
        """Find the tensors of a signature.

        Args:
            promised: what the manifest says.
            actual: what the flatbuffer has.
            one_by_one: whether rows are only run one by one: a batch of one and one of any size are then the same.

        Raises:
            ArtifactError: they are not the same tensors.
        """
        places = {spec.name: place for place, spec in enumerate(promised.inputs)}
        self.input_places = [places.get(spec.name, -1) for spec in actual.inputs]
        # The runtime calls all outputs that are one tensor by the name of one of them.
        heads = {spec.name: spec.same_as or spec.name for spec in promised.outputs}
        found = {heads.get(spec.name, ""): place for place, spec in enumerate(actual.outputs)}
        found.update((spec.name, place) for place, spec in enumerate(actual.outputs))
        self.output_places = [found.get(name, found.get(head, -1)) for name, head in heads.items()]
        self.inputs = [promised.inputs[place] for place in self.input_places if place >= 0]
        self.outputs = promised.outputs
        theirs = [*actual.inputs, *(actual.outputs[place] for place in self.output_places if place >= 0)]
        ours = [*self.inputs, *self.outputs]
        if (
            (len(places), len(heads)) != (len(actual.inputs), len(actual.outputs))
            or (len(promised.inputs), len(promised.outputs)) != (len(places), len(heads))
            or -1 in (*self.input_places, *self.output_places)
            or [_run_as(spec, one_by_one) for spec in ours] != [_run_as(spec, one_by_one) for spec in theirs]
        ):
            raise ArtifactError(
                f"signature {actual.key!r}: the manifest says {[*promised.inputs, *promised.outputs]}, "
                f"the flatbuffer has {[*actual.inputs, *actual.outputs]}"
            )
        self.limited = [spec for spec in self.inputs if spec.limits is not None]
        has_rows = any(spec.batched for spec in self.inputs)
        self.joint_output = next((s.name for s in self.outputs if has_rows and not (s.batched or s.constant)), "")

    def arrange(self, inputs: Mapping[str, Tensor]) -> tuple[list[Tensor], int]:
        """The inputs in the runtime's order, and their number of rows.

        Raises:
            TensorError: values that the model cannot compute with.
        """
        tensors = [inputs[spec.name] for spec in self.inputs]
        if self.limited:
            from litelambda_serving.tensor.limits import check_limits

            for spec in self.limited:
                check_limits(inputs[spec.name], spec)
        return tensors, next((t.shape[0] for t, s in zip(tensors, self.inputs, strict=True) if s.batched), 1)

    def name(self, outputs: Sequence[Any], rows: int) -> dict[str, Tensor]:
        """The runtime's outputs by the manifest's names, in its order."""
        return {
            spec.name: Tensor(spec.dtype, spec.shape_of(rows), outputs[place])
            for spec, place in zip(self.outputs, self.output_places, strict=True)
        }


class Servable:
    """One version of a model, loaded and compiled.

    Attributes:
        manifest: what is known of it.
        statistics: what it has done.
        memory_bytes: estimate of what it holds.
        raw_inputs: what prepares its inputs; None where requests have the model's values.
        vocabularies: by output whose numbers stand for names, these.
        drift: counts what it is asked and answers; None where that is not wanted.
        used: when it last answered, in the repository's count of requests.
        notes: fields for the log line of a request it answered.
        companions: further flatbuffers of the version that were opened, by file.
        open_companion: opens one; None where the version's other files are out of reach.
    """

    open_companion: Callable[[Servable, str], CompiledModel] | None = None
    notes: Mapping[str, Any] | None = None
    drift: DriftCounter | None = None
    raw_inputs: RawInputs | None = None
    vocabularies: Mapping[str, list[str]] | None = None

    def __init__(self, artifact: Artifact, num_threads: int, min_batch: int = _MIN_BATCH) -> None:
        """Compile an artifact and check that the flatbuffer has what its manifest promises.

        Args:
            artifact: what was fetched.
            num_threads: for its runs.
            min_batch: the smallest of the verified batch sizes that is used.

        Raises:
            LiteRtError: the runtime refuses the flatbuffer.
            ArtifactError: a signature of the manifest is not in the flatbuffer, or has other tensors.
            ManifestError: its preprocessing cannot be read.
        """
        self.manifest: Manifest = artifact.manifest
        self.statistics = Statistics()
        self.memory_bytes = size_in_memory(len(memoryview(artifact.model)) + sum(map(len, artifact.assets.values())))
        self.used = 0
        self.companions: dict[str, CompiledModel] = {}
        self._source = artifact.model, num_threads
        self._model: CompiledModel | Copies = CompiledModel(artifact.model, num_threads=num_threads)
        self._batch_sizes = [size for size in reversed(self.manifest.batch_sizes) if size >= min_batch]
        self._bindings = {key: self._bound(key, spec) for key, spec in self.manifest.signatures.items()}
        if self.manifest.preprocessing:
            from litelambda_serving.preprocessing import open_raw_inputs

            self.raw_inputs = open_raw_inputs(self.manifest, artifact.assets)
        if self.manifest.vocabularies:
            from litelambda_serving.servable.vocabularies import open_vocabularies

            self.vocabularies = open_vocabularies(self.manifest, artifact.assets)

    def warm_up(self) -> None:
        """Run the default signature once, on values that it can compute with: no request pays for first allocations.

        Raises:
            LiteRtError: it cannot even compute with those.
            ArtifactError: the manifest's do not fit.
        """
        key = self.manifest.default_signature
        self._model.run(key, warm_up_inputs(self.manifest, key, self._bindings[key].inputs))

    @property
    def copy_bytes(self) -> int:
        """Estimated bytes that one more compiled copy takes."""
        length = len(memoryview(self._source[0]))
        return size_in_memory(length) - length

    def add_copies(self, count: int) -> None:
        """Compile the model so many times more, for as many runs at once."""
        from litelambda_serving.servable.copies import Copies

        if count > 0 and isinstance(self._model, CompiledModel):
            source, num_threads = self._source
            more = [CompiledModel(source, num_threads=num_threads) for _ in range(count)]
            self._model = Copies(self._model, more)
            self.memory_bytes += count * self.copy_bytes

    def drop_copies(self) -> int:
        """Keep one compiled copy alone; how many bytes that frees once the runs of the others are done."""
        if isinstance(self._model, CompiledModel):
            return 0
        freed = self._model.drop() * self.copy_bytes
        self.memory_bytes -= freed
        return freed

    def predict(self, signature_key: str, inputs: Mapping[str, Tensor], deadline: float = inf) -> dict[str, Tensor]:
        """Run a signature on any number of rows.

        Args:
            signature_key: one of the manifest's signatures.
            inputs: a tensor for every input of the signature; batched ones share their number of rows.
            deadline: `time.monotonic()` after which no further rows are run.

        Returns:
            The outputs by name, in the signature's order; batched ones with as many rows as came in.

        Raises:
            TensorError: values that the model cannot compute with.
            RequestError: a number of rows that is not verified, where an output depends on all of them together.
            PayloadTooLargeError: more rows than the deadline allows.
            LiteRtError: the runtime failed, and would have with any values.
        """
        binding = self._bindings[signature_key]
        tensors, rows = binding.arrange(inputs)
        statistics = self.statistics
        started = perf_counter_ns()
        try:
            if rows == 1:
                outputs = self._model.run(signature_key, [tensor.data for tensor in tensors])
                statistics.runs += 1
            else:
                outputs = self._run_rows(signature_key, tensors, rows, deadline)
        except BaseException as error:
            statistics.failures += 1
            if isinstance(error, LiteRtError):
                raise self._explained(error, signature_key, tensors, deadline) from error
            raise
        statistics.add_run(started, rows)
        answered = binding.name(outputs, rows)
        if self.drift is not None and signature_key == self.manifest.default_signature:
            self.drift.count(inputs, answered, rows)
        return answered

    def count_drift(self, signature_key: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """Count rows that `run` has predicted, where they are a part of a prediction."""
        if self.drift is not None and signature_key == self.manifest.default_signature:
            self.drift.count(inputs, outputs, self.manifest.signatures[signature_key].count_rows(inputs))

    def run(
        self, signature_key: str, inputs: Mapping[str, Tensor], deadline: float = inf, first_row: int = 0
    ) -> dict[str, Tensor]:
        """Run a signature as `predict` does, for what is not a prediction of its own: only its runs are counted.

        Args:
            signature_key: as for `predict`.
            inputs: as for `predict`.
            deadline: as for `predict`.
            first_row: number of the first row, for messages.
        """
        binding = self._bindings[signature_key]
        tensors, rows = binding.arrange(inputs)
        try:
            outputs = self._run_rows(signature_key, tensors, rows, deadline)
        except LiteRtError as error:
            raise self._explained(error, signature_key, tensors, deadline, first_row) from error
        return binding.name(outputs, rows)

    def companion(self, file: str) -> CompiledModel | None:
        """A further flatbuffer of the version, opened if it is not; None where it is out of reach.

        Raises:
            StoreError, ArtifactError, LiteRtError: it cannot be loaded.
        """
        found = self.companions.get(file)
        return self.open_companion(self, file) if found is None and self.open_companion else found

    def _run_rows(self, signature_key: str, tensors: Sequence[Tensor], rows: int, deadline: float) -> list[Any]:
        """Run many rows in the largest batches that are verified, the rest one by one."""
        binding = self._bindings[signature_key]
        sizes = self._batch_sizes
        if binding.joint_output:
            sizes = self._joint_batch(binding.joint_output, rows)
        parts: list[list[Any]] = []
        start = 0
        while start < rows:
            if monotonic() > deadline:
                raise PayloadTooLargeError(
                    f"{rows} rows take longer than a request may: {start} were done. Send fewer rows at a time, "
                    "or score the file in batch"
                )
            size = next((size for size in sizes if size <= rows - start), 1)
            try:
                parts.append(self._model.run(signature_key, _cut(binding, tensors, start, size), size))
            except LiteRtError as error:
                error.rows = range(start, start + size)
                raise
            start += size
        runs = len(parts)
        self.statistics.runs += runs
        with_rows = {place for spec, place in zip(binding.outputs, binding.output_places, strict=True) if spec.batched}
        columns = zip(*parts, strict=True)
        return [_joined(column) if place in with_rows else column[0] for place, column in enumerate(columns)]

    def _joint_batch(self, output: str, rows: int) -> list[int]:
        """The batch size where an output depends on all rows together: all of them, or none."""
        if rows in self.manifest.batch_sizes:
            return [rows]
        sizes = ", ".join(map(str, self.manifest.batch_sizes))
        raise RequestError(
            f"output {output!r} depends on all rows of a request together, and this model is verified for {sizes} rows "
            f"at once, not {rows}: send one of these numbers of rows, or each row in its own request"
        )

    def _explained(
        self, error: LiteRtError, key: str, tensors: Sequence[Tensor], deadline: float, first_row: int = 0
    ) -> ServingError:
        """What to raise for a failed run: a `TensorError` where the values are the reason."""
        if not error.in_operator:
            return error
        from litelambda_serving.servable.refusals import explain

        binding = self._bindings[key]
        spare = warm_up_inputs(self.manifest, key, binding.inputs)
        rows = ((first_row + row, _cut(binding, tensors, row, 1)) for row in error.rows)
        return explain(self._model, key, binding.inputs, rows, spare, deadline) or error

    def _bound(self, key: str, promised: SignatureSpec) -> Binding:
        actual = self._model.signatures.get(key)
        if actual is None:
            raise ArtifactError(f"the manifest names signature {key!r}, the flatbuffer has none of that name")
        return Binding(promised, actual, one_by_one=self.manifest.batch_sizes == (1,))


def _run_as(spec: TensorSpec, one_by_one: bool) -> tuple[str, Sequence[int]]:
    return spec.dtype.name, (1, *spec.shape[1:]) if spec.batched and one_by_one else spec.shape


def _cut(binding: Binding, tensors: Sequence[Tensor], start: int, size: int) -> list[Any]:
    """Some rows of each input, as the runtime takes them: lists of strings, and bytes without a copy."""
    cut = []
    for spec, tensor in zip(binding.inputs, tensors, strict=True):
        data = tensor.data
        if spec.batched:
            step = spec.row_bytes or spec.row_values
            view = data if type(data) is list else memoryview(data)
            data = view[start * step : (start + size) * step]
        cut.append(data)
    return cut


def _joined(parts: Sequence[Any]) -> Any:
    """The rows of several runs: bytes, or lists of strings."""
    return b"".join(parts) if type(parts[0]) is bytes else list(chain.from_iterable(parts))
