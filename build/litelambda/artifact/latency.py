"""Latency: how long the shipped runtime takes for one row of an artifact, measured in a process of its own.

It knows the runtime's binding alone: what is timed is what a request waits for in the runtime, on one thread.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np

from litelambda.common.child_process import ChildCrashError, call_in_child
from litelambda.common.errors import VerificationError
from litelambda_serving.errors import LiteRtError
from litelambda_serving.litert import CompiledModel
from litelambda_serving.tensor import TensorSpec

PROCESSES = 3  # the same model takes up to 1.5 times as long in some processes, by where its memory lies
_WARM_UP_S = 0.05  # the first runs allocate, and fill the caches
_MEASURED_S = 0.1
_WARM_UP_TURNS, _TURNS, _TURN_S = 5, 30, 0.002
_MIN_RUNS = 20  # for models that take longer than 5 ms: two of them are in the fastest tenth


def measure_latency_us(artifact: bytes) -> float:
    """The time of a run with one row, in microseconds of CPU time: the 10th percentile, in the fastest process.

    Raises:
        VerificationError: the runtime refused the artifact, or crashed.
    """
    try:
        return min(call_in_child(_measure, artifact) for _process in range(PROCESSES))
    except (ChildCrashError, LiteRtError) as error:
        raise VerificationError(f"the shipped runtime cannot run the artifact: {error}") from error


def _measure(artifact: bytes) -> float:
    with CompiledModel(artifact) as model:
        key, rows = _row_that_runs(model)
        taken: list[float] = []
        started = time.perf_counter()
        while len(taken) < _MIN_RUNS or time.perf_counter() - started < _WARM_UP_S + _MEASURED_S:
            before = time.thread_time()  # CPU time of this thread: preemption does not count
            model.run(key, rows)
            taken.append(time.thread_time() - before)
            if time.perf_counter() - started < _WARM_UP_S:
                taken.clear()
    return 1e6 * sorted(taken)[len(taken) // 10]


def compare_latency_us(artifacts: Sequence[bytes]) -> list[dict[str, float]]:
    """The time of a run with one row of several artifacts, in turns, so that what slows this machine slows them all.

    Returns:
        For each artifact the `median` and the `p90` of its turns in the process where it is fastest, in microseconds of
        CPU time.

    Raises:
        VerificationError: the runtime refused an artifact, or crashed.
    """
    try:
        runs = [call_in_child(_measure_in_turns, list(artifacts)) for _process in range(PROCESSES)]
    except (ChildCrashError, LiteRtError) as error:
        raise VerificationError(f"the shipped runtime cannot run the artifacts: {error}") from error
    return [min(each, key=lambda found: found["median"]) for each in zip(*runs, strict=True)]


def _measure_in_turns(artifacts: list[bytes]) -> list[dict[str, float]]:
    with ExitStack() as stack:
        models = [stack.enter_context(CompiledModel(artifact)) for artifact in artifacts]
        rows = [_row_that_runs(model) for model in models]
        taken: list[list[float]] = [[] for _ in models]
        for turn in range(-_WARM_UP_TURNS, _TURNS):
            for place in range(len(models)) if turn % 2 else reversed(range(len(models))):
                spent = _turn(models[place], *rows[place])
                if turn >= 0:
                    taken[place].append(spent)
    return [{"median": 1e6 * sorted(each)[_TURNS // 2], "p90": 1e6 * sorted(each)[_TURNS * 9 // 10]} for each in taken]


def _turn(model: CompiledModel, key: str, row: list[Any]) -> float:
    """Seconds of CPU time that a run takes, the mean of as many as fit into a turn."""
    began, runs = time.thread_time(), 0
    while (spent := time.thread_time() - began) < _TURN_S or not runs:
        model.run(key, row)
        runs += 1
    return spent / runs


def _row_that_runs(model: CompiledModel) -> tuple[str, list[Any]]:
    """A signature and a row for it: of zeros, or of ones where an operator refuses zeros, as a division does."""
    key, signature = next(iter(model.signatures.items()))
    zeros = [_row_of(spec, 0) for spec in signature.inputs]
    try:
        model.run(key, zeros)
    except LiteRtError:
        return key, [_row_of(spec, 1) for spec in signature.inputs]
    return key, zeros


def _row_of(spec: TensorSpec, value: int) -> bytes | list[bytes]:
    if not spec.dtype.itemsize:
        return [b""] * spec.row_values
    if not value:
        return bytes(spec.row_bytes)
    return np.full(spec.row_bytes // spec.dtype.itemsize, value, spec.dtype.name).tobytes()
