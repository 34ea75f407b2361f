"""Rows that say nothing: what an explained row is compared with."""

from __future__ import annotations

import struct
from itertools import accumulate

from litelambda_serving.errors import ManifestError, RequestError, TensorError
from litelambda_serving.explain.parts import row_shape
from litelambda_serving.tensor import pack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from litelambda_serving.explain.options import Options
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.preprocessing.base import Preprocessor
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import TensorSpec

__all__ = ["Baselines"]


class Baselines:
    """The baseline of each input.

    Attributes:
        used: names of those that were asked for.
    """

    def __init__(self, servable: Servable | Shadowed, key: str, options: Options, *, is_raw: bool) -> None:
        """Read what the caller wants, and what the manifest has.

        Args:
            servable: the model.
            key: its signature.
            options: what the caller wants.
            is_raw: whether the caller sends raw values.

        Raises:
            RequestError: the caller's own row does not fit the model.
        """
        manifest = servable.manifest
        means = (manifest.fields.get("explain") or {}).get("baseline") or {}
        self.used: list[str] = []
        self._means: dict[str, Any] = means if key == manifest.default_signature else {}
        self._wanted = options.baseline
        self._given: dict[str, Any] = {}
        self._missing: dict[str, Any] = {}
        if options.instance is not None:
            inputs = manifest.signatures[key].inputs
            raw_inputs = servable.raw_inputs if is_raw else None
            try:
                tensors = raw_inputs.from_rows([options.instance]) if raw_inputs else _packed(options.instance, inputs)
            except TensorError as error:
                raise RequestError(f"parameter 'baseline': {error}") from error
            self._given = {name: tensor.data for name, tensor in tensors.items()}

    def of(self, spec: TensorSpec, preprocessor: Preprocessor | None, row: Any) -> Any:
        """The baseline of an input that is not a text: bytes, or a list of strings.

        Args:
            spec: the input.
            preprocessor: what prepares it; None where the caller sends the model's own values.
            row: the input of the row that is explained.

        Raises:
            RequestError: the caller wants one that the input cannot have.
            ManifestError: the manifest's does not fit the input.
        """
        name = self._name(spec, preprocessor)
        self.used.append(name)
        if name == "instance":
            return self._given[spec.name]
        if name == "mean":
            return _mean(self._means[spec.name], spec)
        if name == "missing":
            return self._missing[spec.name]
        return _blurred(row, spec) if name == "blurred" else _zeros(spec, preprocessor)

    def _name(self, spec: TensorSpec, preprocessor: Preprocessor | None) -> str:
        if self._given:
            return "instance"
        has_mean, sizes = spec.name in self._means, [size for size in row_shape(spec) if size != 1]
        can_blur = len(sizes) in (2, 3) and spec.dtype.kind in ("float", "int")
        can_be_missing = self._can_be_missing(spec, preprocessor)
        wanted = self._wanted
        for name, can_be, reason in (
            ("mean", has_mean, "the model's manifest has no mean"),
            ("missing", can_be_missing, "its values cannot all be missing"),
            ("blurred", can_blur, "it is not a picture"),
        ):
            if wanted == name and not can_be:
                raise RequestError(f"parameter 'baseline' is {wanted!r}: input {spec.name!r} has none, since {reason}")
        if wanted:
            return wanted
        is_picture = preprocessor is not None and preprocessor.fields[0].type == "image"
        return "mean" if has_mean else "missing" if can_be_missing else "blurred" if is_picture else "zeros"

    def _can_be_missing(self, spec: TensorSpec, preprocessor: Preprocessor | None) -> bool:
        if preprocessor is None or preprocessor.fields[0].type not in ("number", "category"):
            return False
        try:
            self._missing[spec.name] = preprocessor.prepare([[None]] * len(preprocessor.fields)).data
        except TensorError:
            return False
        return True


def _packed(instance: Any, inputs: Sequence[TensorSpec]) -> dict[str, Any]:
    """A row of the model's own values: one input's, or an object with all of them."""
    values = instance if type(instance) is dict else {spec.name: instance for spec in inputs}
    if values.keys() != {spec.name for spec in inputs}:
        raise TensorError(f"expected an object with {', '.join(spec.name for spec in inputs)}")
    return {spec.name: pack([values[spec.name]], spec, (1, *row_shape(spec))) for spec in inputs}


def _mean(value: Any, spec: TensorSpec) -> Any:
    """The manifest's: a number for all of a row, or each of its values."""
    flat = value if type(value) is list else [value] * spec.row_values
    try:
        return pack(flat, spec, (spec.row_values,)).data
    except TensorError as error:
        raise ManifestError(f"manifest field explain, baseline of {spec.name!r}: {error}") from error


def _zeros(spec: TensorSpec, preprocessor: Preprocessor | None) -> Any:
    """What zeros become where the caller sends numbers or pixels; else zeros of the model's own."""
    count, dtype = spec.row_values, spec.dtype
    if not dtype.itemsize:
        return [b""] * count
    if preprocessor is not None and preprocessor.raw_spec is not None and preprocessor.fields[0].shape:
        return preprocessor.prepare_array([0.0] * count, spec.shape_of(1)).data
    zero = 0 if spec.quantization is None else spec.quantization.zero_point
    if spec.limits is not None:
        zero = min(max(zero, spec.limits[0]), spec.limits[1])
    return struct.pack(f"<{count}{dtype.format}", *[zero] * count)


def _blurred(row: bytes, spec: TensorSpec) -> bytes:
    """The row's own picture without its details: each pixel the mean of its surroundings, twice."""
    sizes = [size for size in row_shape(spec) if size != 1]
    height, width = sizes[:2]
    depth = spec.row_values // (height * width)
    code = f"<{spec.row_values}{spec.dtype.format}"
    values = struct.unpack(code, row)
    channels = []
    for channel in range(depth):
        flat = values[channel::depth]
        lines = [flat[start : start + width] for start in range(0, len(flat), width)]
        for _ in range(4):  # rows, then columns, and once more
            lines = [*zip(*[_smoothed(line) for line in lines], strict=True)]
        channels.append([value for line in lines for value in line])
    mixed = [value for pixel in zip(*channels, strict=True) for value in pixel]
    return struct.pack(code, *(mixed if spec.dtype.kind == "float" else map(round, mixed)))


def _smoothed(line: Sequence[float]) -> list[float]:
    """The mean of each value's surroundings, a quarter of the line."""
    size, radius = len(line), len(line) // 8 + 1
    sums = [0.0, *accumulate(line)]
    spans = [(max(place - radius, 0), min(place + radius + 1, size)) for place in range(size)]
    return [(sums[end] - sums[start]) / (end - start) for start, end in spans]
