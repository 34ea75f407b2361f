"""A shadow version: it is asked what the version that answers is asked; its answers are compared and dropped.

Where a request has raw values, each version prepares them in its own way.
"""

from __future__ import annotations

from math import inf
from time import perf_counter_ns

from litelambda_serving.errors import ServingError
from litelambda_serving.preprocessing import RawInputs
from litelambda_serving.tensor import unpack_flat

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from litelambda_serving.litert import CompiledModel
    from litelambda_serving.preprocessing import RawArray
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import Tensor

__all__ = ["Shadowed"]


class Shadowed:
    """A servable and its shadow, behind the servable's interface, for one request.

    Attributes:
        manifest: of the version that answers.
        statistics: what it has done.
        raw_inputs: what prepares the inputs of the version that answers; None where requests have its own values.
        vocabularies: of its outputs.
        notes: fields for the request's log line: `ShadowRows`, `ShadowDisagreements`, `ShadowLatency`, `shadow_version`
            and `shadow_max_abs_difference`, or `shadow_error`; None before a prediction.
    """

    __slots__ = ("_servable", "_shadow", "_warn", "manifest", "notes", "raw_inputs", "statistics", "vocabularies")

    def __init__(self, servable: Servable, shadow: Servable, warn: Callable[[str], None]) -> None:
        self.manifest = servable.manifest
        self.statistics = servable.statistics
        self.raw_inputs = None if servable.raw_inputs is None else _NotedRawInputs(servable.raw_inputs)
        self.vocabularies = servable.vocabularies
        self.notes: Mapping[str, Any] | None = None
        self._servable = servable
        self._shadow = shadow
        self._warn = warn

    def predict(self, signature_key: str, inputs: Mapping[str, Tensor], deadline: float = inf) -> dict[str, Tensor]:
        """Answer as `Servable.predict` does, then let the shadow answer too; its failures do not fail the request."""
        outputs = self._servable.predict(signature_key, inputs, deadline)
        version = self._shadow.manifest.version
        noted = None if self.raw_inputs is None else self.raw_inputs.noted
        if reason := self._misfit(signature_key, is_raw=noted is not None):
            self.notes = {"shadow_version": version, "shadow_error": reason}
            return outputs
        began = perf_counter_ns()
        try:
            if noted is not None and self._shadow.raw_inputs is not None:
                inputs = self._shadow.raw_inputs.prepare(*noted)
            others = self._shadow.predict(signature_key, inputs, deadline)
        except ServingError as error:
            self._warn(f"shadow version {version} of {self.manifest.model} failed: {error}")
            compared: dict[str, Any] = {"shadow_error": type(error).__name__}
        else:
            compared = _compare(outputs, others)
        took_ms = (perf_counter_ns() - began) // 1000 / 1000
        self.notes = {"shadow_version": version, "ShadowLatency": took_ms, **compared}
        return outputs

    def run(
        self, signature_key: str, inputs: Mapping[str, Tensor], deadline: float = inf, first_row: int = 0
    ) -> dict[str, Tensor]:
        """Run the servable as `Servable.run` does; the shadow has no part in it."""
        return self._servable.run(signature_key, inputs, deadline, first_row)

    def count_drift(self, signature_key: str, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor]) -> None:
        """See `Servable.count_drift`."""
        self._servable.count_drift(signature_key, inputs, outputs)

    def companion(self, file: str) -> CompiledModel | None:
        """A further flatbuffer of the version that answers; see `Servable.companion`."""
        return self._servable.companion(file)

    def _misfit(self, signature_key: str, *, is_raw: bool) -> str:
        """Why the shadow cannot be asked the same; "" where it can."""
        ours, theirs = self.manifest.signatures[signature_key], self._shadow.manifest.signatures.get(signature_key)
        if theirs is None or repr(ours.outputs) != repr(theirs.outputs):
            return "another signature"
        if is_raw:
            fields = [each and each.fields for each in (self.raw_inputs, self._shadow.raw_inputs)]
            return "" if repr(fields[0]) == repr(fields[1]) else "other fields"
        if repr(ours.inputs) != repr(theirs.inputs):
            return "another signature"
        return "" if self.manifest.preprocessing == self._shadow.manifest.preprocessing else "another preprocessing"


class _NotedRawInputs(RawInputs):
    """Prepares the inputs of one request and keeps its raw values."""

    def __init__(self, raw_inputs: RawInputs) -> None:
        vars(self).update(vars(raw_inputs))
        self.noted: tuple[Mapping[str, Sequence[Any]], Mapping[str, RawArray] | None] | None = None

    def prepare(
        self, columns: Mapping[str, Sequence[Any]], arrays: Mapping[str, RawArray] | None = None
    ) -> dict[str, Tensor]:
        self.noted = columns, arrays
        return super().prepare(columns, arrays)


def _compare(outputs: Mapping[str, Tensor], others: Mapping[str, Tensor]) -> dict[str, Any]:
    """Count the rows, and those whose decision differs: the place of the largest value, the only value, the strings."""
    num_rows, largest, disagreeing = 1, 0.0, set()
    for name, tensor in outputs.items():
        mine, theirs = unpack_flat(tensor), unpack_flat(others[name])
        decide: Callable[[tuple[Any, ...]], Any] = tuple
        if tensor.dtype.kind != "string":
            decide = _decision
            largest = max(largest, max((abs(a - b) for a, b in zip(mine, theirs, strict=True)), default=0.0))
        num_rows = tensor.shape[0] if tensor.shape else 1
        width = len(mine) // num_rows
        for row in range(num_rows):
            cut = slice(row * width, (row + 1) * width)
            if decide(mine[cut]) != decide(theirs[cut]):
                disagreeing.add(row)
    difference = largest if largest < inf else None  # JSON has no NaN or infinity
    return {"ShadowRows": num_rows, "ShadowDisagreements": len(disagreeing), "shadow_max_abs_difference": difference}


def _decision(row: tuple[Any, ...]) -> Any:
    return row.index(max(row)) if len(row) > 1 and max(row) in row else row
