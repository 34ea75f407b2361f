"""The source comparison: a float flatbuffer against the answers of the model that it was made from.

Both run the same rows: representative ones where there are any, and always rows that are made here, at the edges of
what the inputs can hold. What is compared are real values, output by output, by name.

**The tolerance.** A float flatbuffer may differ from its source by 4,096 float32 ulps of an output's range, from its
smallest to its largest value with zero: 4096 x 2^-23 = 2^-11, 0.05 %. Both compute in float32, but add in another order
and fold other constants: a sum of n products is off by some sqrt(n) ulps of its largest terms, so a layer of 2,000
inputs by about 50, and a hundred such layers, whose errors add up at random, by about 500. Faults of a rewrite or of
the converter - a lost mean, a kernel off by a hundredth, two outputs exchanged, a mask not applied - are above 0.1 %.
And it is an eighth of a step of int8, 1/255 of the range: what passes is invisible in a quantized model. A source that
computes in float16 or bfloat16 is compared at 32 and 16 of its own ulps (3 % and 12 %): its own rounding is of that
size. Whole numbers, truth values and strings must be equal. The range is taken over all rows of a kind, those with
small values apart from those with pixels, so that large answers do not hide faults of small ones.

**Rows that float32 itself does not compute well.** A deep network can amplify rounding a thousandfold on a row that is
far from its data: an EfficientNet whose batch norms had seen noise alone answered a black image 1,000 ulps off in Keras
and 4,100 in TFLite, whose sigmoid is another. So where a difference is too large, a Keras source is asked again in
float64. Then a flatbuffer may be 8 times as far from that as the source's own float32 is: no fault of a rewrite passes
on the rows that float32 does compute well.

Where the source answers NaN, any answer passes; where it answers a number, the flatbuffer must too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.common.arrays import Arrays
from litelambda.common.errors import VerificationError
from litelambda.evaluation.source_process import Answers
from litelambda.keras_tools.made_rows import Runs
from litelambda.keras_tools.model_inputs import ModelInput

TOLERANCE = {"float32": 4096 * 2.0**-23, "float16": 32 * 2.0**-10, "bfloat16": 16 * 2.0**-7}
"""By the least precise type of the source, as a share of an output's range."""
_ULP = 2.0**-23
_OF_ITS_OWN_ROUNDING = 8
_NAMED_RUNS = 3


def representative_runs(rows: Mapping[str, NDArray[Any]], inputs: Sequence[ModelInput], numbers: Sequence[int]) -> Runs:
    """Rows that were given, as many to a run as the model takes.

    Args:
        rows: by input name.
        inputs: the model's.
        numbers: the rows to take, as a user counts them.
    """
    step = rows_of_a_run(inputs)
    count = len(numbers) // step
    used = list(numbers[: count * step])
    arrays = {
        each.name: rows[each.name][used].reshape(count, step, *rows[each.name].shape[1:])
        if each.shape
        else rows[each.name][used[::step]]
        for each in inputs
    }
    names = [f"representative row {used[index * step]}" for index in range(count)]
    return Runs(arrays, names, ["representative"] * count)


def rows_of_a_run(inputs: Sequence[ModelInput]) -> int:
    """How many rows a model takes at a time: one where that is open."""
    return max((each.shape[0] or 1 for each in inputs if each.shape), default=1)


@dataclass(frozen=True)
class Difference:
    """How far an output is from the source's.

    Attributes:
        output: its name.
        largest: the largest difference.
        share: the same as a share of the output's range, where it is largest.
        range: that range.
        runs: names of the runs beyond the tolerance, or of the worst where none is.
    """

    output: str
    largest: float
    share: float
    range: float
    runs: list[str]


def check_against_source(
    expected: Answers,
    found: Mapping[str, NDArray[Any]],
    runs: Runs,
    precision: str,
    ask_exactly: Callable[[], Answers | None] = lambda: None,
) -> float:
    """Refuse a float flatbuffer that does not answer as its source does.

    Args:
        expected: the source's answers.
        found: the flatbuffer's, for the runs that the source answered.
        runs: those runs.
        precision: of the source.
        ask_exactly: what the source answers to those runs in float64, or None; asked where a difference is too large.

    Returns:
        The largest difference, as a share of its output's range.

    Raises:
        VerificationError: outputs are missing, of another size, or beyond the tolerance.
    """
    if missing := sorted(set(expected.outputs) ^ set(found)):
        raise VerificationError(
            f"the source has the outputs {sorted(expected.outputs)}, the float flatbuffer made of it {sorted(found)}: "
            f"{', '.join(missing)} got lost or renamed in conversion. Nothing was published"
        )
    worst = _worst(expected.outputs, found, runs, TOLERANCE[precision])
    if worst is None:
        raise VerificationError(
            "the source answers no made or representative row with a number: nothing can be compared. "
            "Nothing was published"
        )
    largest = worst.share
    if worst.share > TOLERANCE[precision] and precision == "float32" and (exact := ask_exactly()) is not None:
        worst = _worst(exact.outputs, found, runs, TOLERANCE[precision], rounded=expected.outputs) or worst
    if worst.share > TOLERANCE[precision]:
        raise VerificationError(
            f"output {worst.output!r} of the float flatbuffer differs from the source's own answer by "
            f"{worst.largest:.4g}, {worst.share:.2%} of its range of {worst.range:.4g} ({worst.share / _ULP:,.0f} "
            f"float32 ulps, {TOLERANCE[precision] / _ULP:,.0f} are allowed), on the rows {_some(worst.runs)}: a "
            "rewrite of the model or the converter has changed it. Nothing was published"
        )
    return largest


def _worst(
    expected: Arrays,
    found: Mapping[str, NDArray[Any]],
    runs: Runs,
    tolerance: float,
    rounded: Arrays | None = None,
) -> Difference | None:
    """The largest difference; where `rounded` are the same answers in float32, beyond what their rounding allows."""
    differences = [
        difference
        for name, values in expected.items()
        for difference in _differences(
            name, values, found[name], runs, tolerance, None if rounded is None else rounded[name]
        )
    ]
    return max(differences, key=lambda each: each.share, default=None)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - _NAMED_RUNS} more" if len(names) > _NAMED_RUNS else ""
    return ", ".join(map(repr, names[:_NAMED_RUNS])) + more


def _differences(
    name: str,
    expected: NDArray[Any],
    found: NDArray[Any],
    runs: Runs,
    tolerance: float,
    rounded: NDArray[Any] | None,
) -> Iterator[Difference]:
    if expected[:1].size != found[:1].size:
        raise VerificationError(
            f"output {name!r} of the float flatbuffer has {found[:1].size} values for one run, the source's own has "
            f"{expected[:1].size}. Nothing was published"
        )
    right, found = expected.reshape(len(expected), -1), found.reshape(len(found), -1)
    if right.dtype.kind not in "fc":
        wrong = [run for run, a, b in zip(runs.names, right, found, strict=True) if not np.array_equal(a, b)]
        yield Difference(name, float(bool(wrong)), float(bool(wrong)), 1.0, wrong)
        return
    right, found = right.astype(np.float64), found.astype(np.float64)
    for kind in dict.fromkeys(runs.kinds):
        chosen = [index for index, each in enumerate(runs.kinds) if each == kind]
        a, b = right[chosen], found[chosen]
        judged = np.isfinite(a)
        if not judged.any():
            continue
        size = value_range(a)
        apart = _apart(a, b)
        if rounded is not None:
            own = _apart(a, rounded.reshape(len(rounded), -1)[chosen].astype(np.float64))
            apart = np.maximum(apart - _OF_ITS_OWN_ROUNDING * own, 0)
        beyond = [runs.names[chosen[row]] for row in np.flatnonzero(apart > tolerance * size)]
        worst = int(apart.argmax())
        yield Difference(
            name, float(apart[worst]), float(apart[worst] / size), size, beyond or [runs.names[chosen[worst]]]
        )


def _apart(right: NDArray[Any], found: NDArray[Any]) -> NDArray[Any]:
    """The largest difference in each run, where the right value is a number."""
    judged = np.isfinite(right)
    apart = np.abs(np.where(judged, right, 0) - np.where(np.isfinite(found), found, np.inf))
    largest: NDArray[Any] = np.where(judged, apart, 0).max(axis=1)
    return largest


def value_range(values: NDArray[Any]) -> float:
    """From the smallest to the largest finite value, zero included; 1 where all are zero.

    >>> value_range(np.array([2.0, 5.0, np.nan])), value_range(np.array([-1.0, 3.0]))
    (5.0, 4.0)
    """
    finite = values[np.isfinite(values)]
    size = float(max(finite.max(initial=0.0), 0.0) - min(finite.min(initial=0.0), 0.0))
    return size or 1.0
