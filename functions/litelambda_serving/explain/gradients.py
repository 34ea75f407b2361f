"""Integrated gradients: what each value adds on the straight path from the baseline to the row.

The build exports them of the float model as a flatbuffer of its own, which is fetched with the first explanation. A run
of it covers a part of the path. Where a run leaves too much of the difference between the two outputs unexplained, its
part is halved, the worst one first.
"""

from __future__ import annotations

import struct
from time import monotonic

from litelambda_serving.errors import ManifestError, PayloadTooLargeError, UnsupportedError
from litelambda_serving.explain.attribution import Attribution
from litelambda_serving.tensor import Tensor
from litelambda_serving.tensor.limits import check_limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from litelambda_serving.explain.options import Options
    from litelambda_serving.explain.subject import Subject
    from litelambda_serving.litert import CompiledModel
    from litelambda_serving.manifest import Manifest
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import TensorSpec

__all__ = ["attribute", "has_gradients", "most_cells"]

TOLERANCE = 0.01
"""Of the difference between the two outputs, what may be left unexplained."""

_NOTHING = 1e-3
"""A difference of less than this share of the outputs is that of their rounding."""

_MAX_RUNS = 1000


def has_gradients(manifest: Manifest, key: str) -> bool:
    """Whether a version has the gradients of a signature."""
    explain = manifest.fields.get("explain")
    return type(explain) is dict and bool(explain.get("gradients")) and key == manifest.default_signature


def most_cells(options: Options) -> None:
    """Every value has its own gradient."""


def attribute(subject: Subject, options: Options) -> Attribution:
    """Attribute by integrated gradients.

    Raises:
        UnsupportedError: the version has no gradients, or not of the output that is explained.
        PayloadTooLargeError: the deadline has passed.
        StoreError, ArtifactError, LiteRtError: they cannot be loaded.
    """
    path = _Path(subject)
    parts = [path.run(0.0, 1.0)]
    most = options.max_runs or _MAX_RUNS
    while sum(part.error for part in parts) > path.allowed(parts) and path.runs + 2 * path.points <= most:
        worst = max(parts, key=lambda part: part.error)
        middle = (worst.begin + worst.end) / 2
        parts.remove(worst)
        parts += [path.run(worst.begin, middle), path.run(middle, worst.end)]
    first, last = min(parts, key=lambda part: part.begin), max(parts, key=lambda part: part.end)
    totals = {
        name: [sum(column) for column in zip(*[p.found[name] for p in parts], strict=True)] for name in path.names
    }
    return Attribution(subject.fold(totals), last.output, first.baseline_output, subject.runs + path.runs)


class _Part:
    """A part of the path.

    Attributes:
        begin, end: of it, between 0 and 1.
        found: attributions by input.
        output, baseline_output: at its end and its beginning.
        error: what it leaves unexplained.
    """

    def __init__(
        self, begin: float, end: float, found: Mapping[str, Sequence[float]], output: float, baseline_output: float
    ) -> None:
        self.begin, self.end = begin, end
        self.found = found
        self.output, self.baseline_output = output, baseline_output
        self.error = abs(sum(map(sum, found.values())) - (output - baseline_output))


class _Path:
    """The path from the baseline to the row.

    Attributes:
        names: of the model's inputs.
        points: that a run takes, its ends included.
        runs: points that were taken.
    """

    def __init__(self, subject: Subject) -> None:
        rows = subject.rows
        manifest = rows.servable.manifest
        document = _document(manifest, rows.key)
        self._subject = subject
        self._model = _opened(rows.servable, _text(document, "file"))
        (self._signature,) = self._model.signatures.values()
        self.names: list[str] = document["inputs"]
        self.points = document["steps"] + 2
        self.runs = 0
        specs = {spec.name: spec for spec in rows.signature.inputs}
        self._values = {"target": _one_hot(subject, document["outputs"])}
        for place, name in enumerate(self.names):
            self._values[f"row_{place}"] = _in_float(specs[name], subject.inputs[name])
            self._values[f"baseline_{place}"] = _in_float(specs[name], subject.baseline_inputs[name])

    def run(self, begin: float, end: float) -> _Part:
        """Integrate a part."""
        if monotonic() > self._subject.rows.deadline:
            raise PayloadTooLargeError(
                "the explanation takes longer than a request may: send fewer rows at a time, or lower max_runs"
            )
        values = {**self._values, "span": struct.pack("<2f", begin, end)}
        data = self._model.run(self._signature.key, [values[spec.name] for spec in self._signature.inputs])
        self.runs += self.points
        found = {
            spec.name: struct.unpack(f"<{len(each) // 4}f", each)
            for spec, each in zip(self._signature.outputs, data, strict=True)
        }
        attributions = {name: found[f"attributions_{place}"] for place, name in enumerate(self.names)}
        return _Part(begin, end, attributions, found["output"][0], found["baseline_output"][0])

    def allowed(self, parts: Sequence[_Part]) -> float:
        """What may be left unexplained of the difference between the path's ends."""
        output = max(parts, key=lambda part: part.end).output
        baseline_output = min(parts, key=lambda part: part.begin).baseline_output
        difference = abs(output - baseline_output)
        return TOLERANCE * max(difference, _NOTHING * max(abs(output), abs(baseline_output)))


def _opened(servable: Servable | Shadowed, file: str) -> CompiledModel:
    model = servable.companion(file)
    if model is None:
        raise UnsupportedError(
            "method 'integrated_gradients': the version's gradients are out of reach here: use another method"
        )
    return model


def _document(manifest: Manifest, key: str) -> dict[str, Any]:
    if not has_gradients(manifest, key):
        explain = manifest.fields.get("explain")
        note = explain.get("note") if type(explain) is dict else None
        reason = f": {str(note)[:300]}" if note else ""
        raise UnsupportedError(
            f"method 'integrated_gradients': version {manifest.version} of {manifest.model} has no gradients{reason}. "
            "Use another method, or none for the model's default"
        )
    document = manifest.fields["explain"]["gradients"]
    signature = manifest.signatures[key]
    names = [spec.name for spec in signature.inputs]
    if type(document) is not dict or type(document.get("steps")) is not int:
        raise ManifestError("manifest field explain: gradients has no steps")
    for field, known in (("inputs", names), ("outputs", [spec.name for spec in signature.outputs])):
        listed = document.get(field)
        if type(listed) is not list or not set(map(str, listed)) <= set(known):
            raise ManifestError(f"manifest field explain: {field} of gradients are {str(listed)[:80]}, not of {known}")
    if sorted(document["inputs"]) != sorted(names):
        raise ManifestError(f"manifest field explain: gradients are of {document['inputs']}, not of all of {names}")
    return document


def _text(document: Mapping[str, Any], name: str) -> str:
    value = document.get(name)
    if type(value) is not str:
        raise ManifestError(f"manifest field explain: gradients has no {name}")
    return value


def _one_hot(subject: Subject, outputs: Sequence[str]) -> bytes:
    """Which of all values of the outputs is explained."""
    target = subject.target
    widths = {spec.name: spec.row_values for spec in subject.rows.signature.outputs}
    if target.spec.name not in outputs:
        raise UnsupportedError(
            f"method 'integrated_gradients': output {target.spec.name!r} has no gradient: use {', '.join(outputs)}"
        )
    before = sum(widths[name] for name in outputs[: outputs.index(target.spec.name)])
    chosen = [0.0] * sum(widths[name] for name in outputs)
    chosen[before + target.index] = 1.0
    return struct.pack(f"<{len(chosen)}f", *chosen)


def _in_float(spec: TensorSpec, data: Any) -> Any:
    """An input as the float model reads it: numbers of tokens in 32 bits, all else in float32."""
    if spec.dtype.name in ("float32", "int32") and spec.quantization is None:
        if spec.limits is not None:
            check_limits(Tensor(spec.dtype, spec.shape_of(1), data), spec)
        return data
    values = struct.unpack(f"<{spec.row_values}{spec.dtype.format}", data)
    if spec.quantization is not None:
        scale, zero = spec.quantization.scale, spec.quantization.zero_point
        return struct.pack(f"<{len(values)}f", *[(value - zero) * scale for value in values])
    if spec.limits is not None:
        check_limits(Tensor(spec.dtype, spec.shape_of(1), data), spec)
    return struct.pack(f"<{len(values)}{'f' if spec.dtype.kind == 'float' else 'i'}", *values)
