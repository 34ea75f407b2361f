"""Shapley values: a feature's attribution is what it adds to the output, on average over all orders of adding them.

They always sum up to the difference between the row's output and the baseline's. With few features every coalition is
run, and the values are exact; with more, orders are drawn at random, each followed by its reverse.

Source: Shapley 1953; Castro, Gómez and Tejada 2009, Polynomial calculation of the Shapley value based on sampling;
Mitchell et al. 2022, Sampling permutations for Shapley value estimation (antithetic orders).
"""

from __future__ import annotations

from _random import Random
from math import comb, sqrt

from litelambda_serving.explain.attribution import Attribution
from litelambda_serving.explain.leave_one_out import check_runs

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from litelambda_serving.explain.options import Options
    from litelambda_serving.explain.subject import Subject

__all__ = ["attribute", "most_cells"]

_RUNS = 1024
_RUNS_PER_FEATURE = 8  # at least: two orders, and their reverses twice
_CELLS = 49


def most_cells(options: Options) -> int:
    """See `litelambda_serving.explain`."""
    return max(1, min(_CELLS, (options.max_runs or _RUNS) // 2))


def attribute(subject: Subject, options: Options) -> Attribution:
    """See `litelambda_serving.explain`.

    Raises:
        RequestError: there are not even runs for one order and its reverse.
    """
    size = subject.size
    runs = options.max_runs or max(_RUNS, _RUNS_PER_FEATURE * size)
    if 1 << size <= runs:
        return _exact(subject)
    per_pair = 2 * (size - 1)
    check_runs(2 + per_pair, size, runs)
    orders = _orders(size, (runs - 2) // per_pair, Random(options.seed))
    return _sampled(subject, orders)


def _exact(subject: Subject) -> Attribution:
    """From the outputs of all coalitions."""
    size = subject.size
    coalitions = [bytes([number >> place & 1 for place in range(size)]) for number in range(1 << size)]
    outputs = [*subject.outputs(coalitions[:-1]), subject.output()]
    weights = [1 / (size * comb(size - 1, others)) for others in range(size)]
    values = [
        sum(
            weights[number.bit_count()] * (outputs[number | 1 << place] - outputs[number])
            for number in range(1 << size)
            if not number >> place & 1
        )
        for place in range(size)
    ]
    return Attribution(values, outputs[-1], outputs[0], subject.runs)


def _sampled(subject: Subject, orders: Sequence[list[int]]) -> Attribution:
    """From the coalitions that some orders pass through; each two are an order and its reverse."""
    size = subject.size
    passed = [_passed(order) for order in orders]
    wanted = dict.fromkeys(coalition for coalitions in passed for coalition in coalitions[:-1])
    known = dict(zip(wanted, subject.outputs([*wanted]), strict=True))
    known[b"\1" * size] = subject.output()
    pairs = []
    for first, second in zip(range(0, len(orders), 2), range(1, len(orders), 2), strict=True):
        added = [0.0] * size
        for place in (first, second):
            outputs = [known[coalition] for coalition in passed[place]]
            for feature, before, after in zip(orders[place], outputs, outputs[1:], strict=False):
                added[feature] += (after - before) / 2
        pairs.append(added)
    count = len(pairs)
    values = [sum(column) / count for column in zip(*pairs, strict=True)]
    errors = None
    if count > 1:
        squares = [
            sum((each - mean) ** 2 for each in column)
            for column, mean in zip(zip(*pairs, strict=True), values, strict=True)
        ]
        errors = [sqrt(square / (count - 1) / count) for square in squares]
    return Attribution(values, known[b"\1" * size], known[bytes(size)], subject.runs, errors)


def _orders(size: int, pairs: int, random: Random) -> list[list[int]]:
    """Random orders of the features, each followed by its reverse."""
    orders = []
    order = list(range(size))
    for _ in range(pairs):
        for last in range(size - 1, 0, -1):  # Fisher and Yates
            other = int(random.random() * (last + 1))
            order[last], order[other] = order[other], order[last]
        orders += [order[:], order[::-1]]
    return orders


def _passed(order: Sequence[int]) -> list[bytes]:
    """The coalitions from none of the features to all of them."""
    present = bytearray(len(order))
    coalitions = [bytes(present)]
    for feature in order:
        present[feature] = 1
        coalitions.append(bytes(present))
    return coalitions
