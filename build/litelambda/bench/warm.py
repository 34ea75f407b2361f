"""`litelambda bench warm`: what a prediction costs once the function runs.

    litelambda bench warm --model mnist_mlp --invokes 2000

The handlers stay up, each in its own process, and are invoked in short blocks in turn. Round trips go through the real
runtime client; what hello world takes for the same event is subtracted, so that what is left is the handler's own work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from litelambda.bench.contenders import FLOOR, OURS, USUAL, choose, contenders_for
from litelambda.bench.environment import Environment
from litelambda.bench.machine import describe_machine
from litelambda.bench.report import Progress
from litelambda.bench.requirements import require_runtime
from litelambda.bench.subject import (
    Subject,
    largest_difference,
    load_subject,
    make_rows,
    predict_event,
    read_predictions,
)
from litelambda.bench.summary import percentile, ratio
from litelambda.bench.workplace import Workplace
from litelambda.errors import BenchError, UsageError

CASES = {"json_1_row": 1, "json_32_rows": 32}
_BLOCK = 50
_WARM_UP = 100
_RAW_S = 0.5
_AGREE_WITHIN = 0.02


def run(args: argparse.Namespace) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        `cases` by name, in microseconds: `p50_us` and `p99_us` of ours and `usual_us` on top of hello world's median,
        `raw_us` of the bare run in the runtime, the `ratio` of ours to the usual handler; and what they were measured
        on.

    Raises:
        BenchError: The model is not in the store, a handler failed, or two handlers disagree.
        UsageError: A flag has an impossible value.
    """
    if args.invokes < 1:
        raise UsageError(f"bench warm takes --invokes >= 1, not {args.invokes}")
    require_runtime()
    subject = load_subject(args.store, args.model)
    contenders = choose(contenders_for(subject), f"{FLOOR},{OURS},{USUAL}")
    cases = {}
    with Workplace(subject, package=args.package) as workplace, ExitStack() as stack:
        started = {each.name: stack.enter_context(workplace.start(each)) for each in contenders}
        with Progress("warm invokes", len(CASES) * -(-args.invokes // _BLOCK)) as progress:
            for name, rows in CASES.items():
                cases[name] = _measure_case(started, subject, rows, args.invokes, progress, name)
    return {
        "cases": cases,
        "invokes": args.invokes,
        "block": _BLOCK,
        "package": str(args.package) if args.package else None,
        "notes": workplace.notes,
        "model": subject.describe(),
        "machine": describe_machine(),
    }


def _measure_case(
    environments: Mapping[str, Environment], subject: Subject, count: int, invokes: int, progress: Progress, name: str
) -> dict[str, Any]:
    rows = make_rows(subject.inputs, count)
    event = predict_event(subject.manifest.model, rows)
    _check_agreement(environments, event, count)
    times: dict[str, list[float]] = {each: [] for each in environments}
    for environment in environments.values():
        for _index in range(min(_WARM_UP, invokes)):
            environment.invoke(event)
    for start in range(0, invokes, _BLOCK):
        progress.step(name)
        for each, environment in environments.items():
            times[each] += [environment.invoke(event).ms * 1000 for _index in range(min(_BLOCK, invokes - start))]
    return {**_summarise(times), "raw_us": round(_raw_us(subject, count), 2), "event_bytes": len(event)}


def _summarise(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    floor = statistics.median(times[FLOOR])
    ours, usual = (statistics.median(times[name]) - floor for name in (OURS, USUAL))
    return {
        "p50_us": round(ours, 1),
        "p99_us": round(percentile(times[OURS], 99) - floor, 1),
        "usual_us": round(usual, 1),
        "usual_p99_us": round(percentile(times[USUAL], 99) - floor, 1),
        "hello_us": round(floor, 1),
        "ratio": ratio(ours, usual),
    }


def _check_agreement(environments: Mapping[str, Environment], event: bytes, count: int) -> None:
    """Refuse to compare handlers that do not give the same predictions."""
    ours, usual = (read_predictions(environments[name].invoke(event).json(), count, name) for name in (OURS, USUAL))
    difference = largest_difference(ours, usual)
    if not difference <= _AGREE_WITHIN:
        raise BenchError(
            f"{OURS} and {USUAL} differ by {difference:g} on the same rows; at most {_AGREE_WITHIN} is noise"
        )


def _raw_us(subject: Subject, count: int) -> float:
    """Median time of a bare run of `count` rows in the runtime; row by row where batches are not proven safe."""
    from serving.litert import CompiledModel

    at_once = count if count in subject.manifest.batch_sizes else 1
    data = [bytes(at_once * spec.row_bytes) for spec in subject.inputs]
    with _quiet_stderr(), CompiledModel(subject.artifact) as model:
        key = subject.manifest.default_signature
        model.run(key, data, at_once)
        times = []
        end = time.perf_counter() + _RAW_S
        while (started := time.perf_counter()) < end:
            for _run in range(count // at_once):
                model.run(key, data, at_once)
            times.append((time.perf_counter() - started) * 1e6)
    return statistics.median(times)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep what native code prints out of the progress line."""
    sys.stderr.flush()
    kept = os.dup(2)
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
