"""Counts what a version is asked and answers, in the bins of its baseline: the manifest's `drift`.

Loaded where DRIFT_WINDOW is set. One row of a request is counted, whatever their number: the time stays within a few
microseconds, and rows that were sent together are not taken for independent ones. A feature is a value of a tensor as
the model reads or gives it, or one figure of a wide one:

    value       the value at `at`
    category    which of the values from `at` on, `width` of them, is 1
    index       the whole number at `at`
    mean, deviation     of at most 64 values, evenly spaced over the row
    length, unknown     of tokens: how many are not `padding`, and which share of these is `token`
    bytes       length of a string
    class, highest      the place of the largest value, and that value

Numbers have `edges`, from each of which on a value belongs to the next bin; places and whole numbers have `indices`,
one for each bin but the last, which takes all others. The counts of several windows, or environments, may be added.
"""

from __future__ import annotations

import struct
from _bisect import bisect_right
from _operator import mul  # without the Python module around it
from math import sqrt

from litelambda_serving.errors import ManifestError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.tensor import Tensor, TensorSpec

    Counts = list[list[int]]
    Read = Callable[[Tensor, int], Sequence[Any]]
    Add = Callable[[Sequence[Any]], None]
    Plan = tuple[str, Read, list[Add]]

__all__ = ["DriftCounter", "figure_of", "row_reader"]

_SAMPLED_VALUES = 64
_UNITS_PER_REQUEST = 32  # of time, each about that of one plain value: more are not spent on every request


class DriftCounter:
    """The counts of one version in one execution environment.

    Attributes:
        document: the manifest's `drift`.
        rows: that were counted and not taken yet.
        every: one request in so many is counted, where a row is so wide that counting takes long.
    """

    def __init__(self, manifest: Manifest) -> None:
        """Prepare to count; see `litelambda_serving.drift`.

        Raises:
            ManifestError: the baseline cannot be read, or is not of this model.
        """
        self.document: Mapping[str, Any] = manifest.fields["drift"]
        signature = manifest.signatures[manifest.default_signature]
        self._counts: Counts = []
        self._turn = self.rows = units = 0
        try:
            features = self.document["features"]
            self._counts = [[0] * len(feature["counts"]) for feature in features]
            plans = []
            for specs in (signature.inputs, signature.outputs):
                found = [
                    (spec, [each for each in enumerate(features) if each[1]["tensor"] == spec.name]) for spec in specs
                ]
                plans.append([self._plan(spec, here) for spec, here in found if here])
                units += sum(_units(spec, [feature for _, feature in here]) for spec, here in found)
            self._inputs, self._outputs = plans
        except (LookupError, TypeError, ValueError) as error:
            raise ManifestError(f"manifest field drift cannot be read: {type(error).__name__}: {error}") from error
        self.every = 1 + units // _UNITS_PER_REQUEST

    def count(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], rows: int) -> None:
        """Count one of a request's rows: each time another place in the request.

        Args:
            inputs: of the default signature, as the model read them.
            outputs: what it answered.
            rows: of the request.
        """
        self._turn += 1
        if self._turn % self.every:
            return
        self.count_row(inputs, outputs, self._turn // self.every % rows)

    def count_row(self, inputs: Mapping[str, Tensor], outputs: Mapping[str, Tensor], row: int) -> None:
        """Count one row, by its place in the request."""
        self.rows += 1
        for tensors, plans in ((inputs, self._inputs), (outputs, self._outputs)):
            for name, read, adders in plans:
                values = read(tensors[name], row)
                for add in adders:
                    add(values)

    def add(self, counts: Counts) -> None:
        """Add the counts of another window, or environment.

        Raises:
            ValueError: they are not of these bins.
        """
        if [len(each) for each in counts] != [len(each) for each in self._counts]:
            raise ValueError("the counts have other bins than the baseline")
        for into, found in zip(self._counts, counts, strict=True):
            into[:] = [one + other for one, other in zip(into, found, strict=True)]
        self.rows += sum(counts[0])

    def take(self) -> Counts:
        """The counts by feature, in the manifest's order; counting begins again."""
        taken = [list(counts) for counts in self._counts]
        for counts in self._counts:
            counts[:] = [0] * len(counts)
        self.rows = 0
        return taken

    def _plan(self, spec: TensorSpec, features: Sequence[tuple[int, Mapping[str, Any]]]) -> Plan:
        numbers = [(feature, self._counts[place]) for place, feature in features if feature["statistic"] == "value"]
        others = [(feature, self._counts[place]) for place, feature in features if feature["statistic"] != "value"]
        adders = [_adder(*each) for each in others]
        if numbers:
            adders.append(_numbers_adder(numbers))
        return spec.name, row_reader(spec, [feature for _, feature in features]), adders


def row_reader(spec: TensorSpec, features: Sequence[Mapping[str, Any]]) -> Read:
    """What reads the values that some features of a tensor need of one row: all of them, or those that are sampled."""
    width = spec.row_values
    if not spec.dtype.itemsize:
        return lambda tensor, row: tensor.data[row * width : row * width + 1]
    code, size = spec.dtype.format, spec.row_bytes
    if code == "e" or not _is_sampled(features, width):
        unpack = struct.Struct(f"<{width}{code}").unpack_from
        return lambda tensor, row: unpack(tensor.data, row * size)
    step = -(-width // _SAMPLED_VALUES)
    as_numbers: Any = code  # of the codes of `struct` those that are left are a memoryview's too

    def read(tensor: Tensor, row: int) -> Sequence[Any]:
        numbers = memoryview(tensor.data).cast("B").cast(as_numbers)
        return numbers[row * width : (row + 1) * width : step].tolist()

    return read


def figure_of(feature: Mapping[str, Any]) -> Callable[[Sequence[Any]], Any]:
    """What a feature is, computed from the values that `row_reader` reads."""
    return _FIGURES[feature["statistic"]](feature)


def _is_sampled(features: Sequence[Mapping[str, Any]], width: int) -> bool:
    return width > _SAMPLED_VALUES and all(each["statistic"] in ("mean", "deviation") for each in features)


def _units(spec: TensorSpec, features: Sequence[Mapping[str, Any]]) -> int:
    """About how long reading and counting a row takes: loops over its values run in C."""
    if not features:
        return 0
    read = _SAMPLED_VALUES if _is_sampled(features, spec.row_values) else spec.row_values
    return 3 + read // 16 + sum(1 if each["statistic"] in ("value", "index") else 3 + read // 6 for each in features)


def _adder(feature: Mapping[str, Any], counts: list[int]) -> Add:
    figure = figure_of(feature)
    if "edges" in feature:
        edges = feature["edges"]

        def add(values: Sequence[Any]) -> None:
            counts[bisect_right(edges, figure(values))] += 1

        return add
    find, last = {index: place for place, index in enumerate(feature["indices"])}.get, len(counts) - 1

    def add_place(values: Sequence[Any]) -> None:
        counts[find(figure(values), last)] += 1

    return add_place


def _numbers_adder(features: Sequence[tuple[Mapping[str, Any], list[int]]]) -> Add:
    """Counts all plain values of a row in one loop."""
    bins = [(feature["at"], feature["edges"], counts) for feature, counts in features]

    def add(values: Sequence[Any]) -> None:
        for at, edges, counts in bins:
            counts[bisect_right(edges, values[at])] += 1

    return add


def _value(feature: Mapping[str, Any]) -> Callable[[Sequence[Any]], Any]:
    at = feature["at"]
    return lambda values: values[at]


def _category(feature: Mapping[str, Any]) -> Callable[[Sequence[Any]], int]:
    start, stop, zero = feature["at"], feature["at"] + feature["width"], feature.get("zero", 0)

    def figure(values: Sequence[Any]) -> int:
        part = values[start:stop]
        highest = max(part)
        return part.index(highest) if highest > zero else -1

    return figure


def _mean(_: Mapping[str, Any]) -> Callable[[Sequence[Any]], float]:
    return lambda values: sum(values) / len(values)


def _deviation(_: Mapping[str, Any]) -> Callable[[Sequence[Any]], float]:
    def figure(values: Sequence[Any]) -> float:
        count = len(values)
        mean = sum(values) / count
        return sqrt(max(0.0, sum(map(mul, values, values)) / count - mean * mean))

    return figure


def _length(feature: Mapping[str, Any]) -> Callable[[Sequence[Any]], int]:
    padding = feature["padding"]
    return lambda values: len(values) - values.count(padding)


def _unknown(feature: Mapping[str, Any]) -> Callable[[Sequence[Any]], float]:
    padding, token = feature["padding"], feature["token"]
    return lambda values: values.count(token) / max(1, len(values) - values.count(padding))


def _bytes(_: Mapping[str, Any]) -> Callable[[Sequence[Any]], int]:
    return lambda values: len(values[0])


def _class(_: Mapping[str, Any]) -> Callable[[Sequence[Any]], int]:
    return lambda values: values.index(max(values))


def _highest(_: Mapping[str, Any]) -> Callable[[Sequence[Any]], Any]:
    return max


_FIGURES: dict[str, Callable[[Mapping[str, Any]], Callable[[Sequence[Any]], Any]]] = {
    "value": _value,
    "category": _category,
    "index": _value,
    "mean": _mean,
    "deviation": _deviation,
    "length": _length,
    "unknown": _unknown,
    "bytes": _bytes,
    "class": _class,
    "highest": _highest,
}
