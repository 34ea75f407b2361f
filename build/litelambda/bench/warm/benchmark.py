"""`litelambda bench warm`: what a prediction costs once the function runs.

    litelambda bench warm --invokes 2000 --chart warm.svg
    litelambda bench warm --model my_model

The handlers stay up, each in its own process, and are invoked in short blocks in turn. Round trips go through the
runtime clients; what hello world takes for the same event in the stock one is subtracted, so that what is left is what
the handler adds. All run on one core, and ratios are medians of each turn's: a core that is slower than another, or
slower for a second, is so for both sides.
"""

from __future__ import annotations

import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.bench.charts import check_chart_path, draw_warm
from litelambda.bench.contenders import FLOOR, OURS, OURS_LEAN, USUAL, choose, contenders_for
from litelambda.bench.emulator.environment import Environment
from litelambda.bench.report import describe_machine, ratio, show_table
from litelambda.bench.subject import Subject, largest_difference, load_subject
from litelambda.bench.warm.cases import Case, make_cases
from litelambda.bench.warm.explanations import measure_explanations, show_explanations
from litelambda.bench.warm.mobilenet import NAME as MOBILENET
from litelambda.bench.warm.mobilenet import mobilenet_store
from litelambda.bench.workplace import Workplace, require_runtime
from litelambda.common.errors import BenchError, UsageError
from litelambda.common.progress import open_reporter
from litelambda.keras_tools.backend import native_stderr_held_back
from litelambda_serving.litert import CompiledModel

DEFAULT_MODEL = "mnist_mlp"
_ROW_COUNTS = (1, 32)
_BLOCK = 50
_WARM_UP = 100
_MOBILENET_SHARE = 10  # a request takes some ten times longer, so that a tenth of them do, in turns of a tenth
_EXPLAINED_SHARE = 10  # as do explanations
_RAW = "raw"
_AGREE_WITHIN = 0.02
_CODES_WITHIN = 1


@dataclass(frozen=True)
class Options:
    """What is measured and how: `litelambda bench warm --help` says what each means."""

    model: str | None
    store: str
    package: Path | None
    invokes: int
    chart: Path | None


def run(options: Options) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        `cases` by name, in microseconds: `p50_us` and `p99_us` of ours, `lean_us` of ours under the lean bootstrap and
        `usual_us`, all on top of hello world's median; `raw_us` of the bare run in the runtime; the `ratio` of ours to
        the usual handler and `over_raw` to the bare run; `explanations` by model; and what they were measured on.

    Raises:
        BenchError: the model is not in the store, a handler failed, or two handlers disagree.
        UsageError: a flag has an impossible value.
    """
    if options.invokes < 1:
        raise UsageError(f"bench warm takes --invokes >= 1, not {options.invokes}")
    check_chart_path(options.chart)
    require_runtime()
    subject = load_subject(options.store, options.model or DEFAULT_MODEL)
    plan = [(subject, make_cases(subject, _ROW_COUNTS), options.invokes, _BLOCK)]
    if options.model is None:
        large = load_subject(mobilenet_store(), MOBILENET)
        invokes, block = -(-options.invokes // _MOBILENET_SHARE), _BLOCK // _MOBILENET_SHARE
        plan.append((large, make_cases(large, (1,), f"{MOBILENET}_"), invokes, block))
    cases: dict[str, Any] = {}
    explained: dict[str, Any] = {}
    notes: dict[str, None] = {}
    total, done = sum(len(each) * -(-invokes // block) for _, each, invokes, block in plan), itertools.count()
    with open_reporter(terminal_only=True, animated=False).stage("warm invokes") as stage:

        def step(name: str) -> None:
            stage.progress(next(done) / total, name)

        for each, each_cases, invokes, block in plan:
            blocks = [min(block, invokes - start) for start in range(0, invokes, block)]
            with Workplace(each, package=options.package) as workplace, _one_core():
                measured = _measure(workplace, each, each_cases, blocks, step)
                cases |= measured[0]
                explained |= measured[1]
                notes |= dict.fromkeys(workplace.notes)
    result = {
        "cases": cases,
        "explanations": explained,
        "invokes": options.invokes,
        "block": _BLOCK,
        "package": str(options.package) if options.package else None,
        "notes": list(notes),
        "model": subject.describe(),
        "machine": describe_machine(),
    }
    if options.chart:
        draw_warm(result, options.chart)
    return result


@contextmanager
def _one_core() -> Iterator[None]:
    """Keep this process, and those that it starts, on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _measure(
    workplace: Workplace, subject: Subject, cases: Sequence[Case], blocks: Sequence[int], step: Callable[[str], None]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the cases of a model took, and its explanations."""
    contenders = choose(contenders_for(subject), f"{FLOOR},{OURS},{OURS_LEAN},{USUAL}")
    with ExitStack() as stack:
        started = {each.name: stack.enter_context(workplace.start(each)) for each in contenders}
        measured = {case.name: _measure_case(started, subject, case, blocks, step) for case in cases}
        return measured, measure_explanations(started, subject, -(-sum(blocks) // _EXPLAINED_SHARE))


def _measure_case(
    environments: Mapping[str, Environment],
    subject: Subject,
    case: Case,
    blocks: Sequence[int],
    step: Callable[[str], None],
) -> dict[str, Any]:
    _check_agreement(environments, subject, case)
    times: dict[str, list[list[float]]] = {each: [] for each in (*environments, _RAW)}
    for environment in environments.values():
        for _index in range(min(_WARM_UP, sum(blocks))):
            environment.invoke(case.event)
    with native_stderr_held_back():
        compiled = CompiledModel(subject.artifact)
    with compiled as model:
        bare_run = _bare_run(model, subject, case.num_rows)
        for block in blocks:
            step(case.name)
            for each, environment in environments.items():
                times[each].append([environment.invoke(case.event).ms * 1000 for _index in range(block)])
            times[_RAW].append([bare_run() for _index in range(block)])
    return _summarize(times) | {"event_bytes": len(case.event)}


def _bare_run(model: CompiledModel, subject: Subject, num_rows: int) -> Callable[[], float]:
    """A function that runs so many rows in the shipped runtime alone, and returns the microseconds that they took.

    They run one by one where batches are not proven safe.
    """
    at_once = num_rows if num_rows in subject.manifest.batch_sizes else 1
    inputs = [bytes(at_once * spec.row_bytes) for spec in subject.inputs]

    def run() -> float:
        started = time.perf_counter()
        for _run in range(num_rows // at_once):
            model.run(subject.manifest.default_signature, inputs, at_once)
        return (time.perf_counter() - started) * 1e6

    run()  # the first allocates
    return run


def _summarize(times: Mapping[str, Sequence[Sequence[float]]]) -> dict[str, Any]:
    """What the invokes took, each handler's in blocks of which those of the same place were one turn."""
    pooled = {name: [each for block in blocks for each in block] for name, blocks in times.items()}
    turns = {name: [statistics.median(block) for block in blocks] for name, blocks in times.items()}
    floor = statistics.median(pooled[FLOOR])

    def quotient(name: str, other: str) -> float | None:
        """The median of those of the turns, each on top of the turn's own hello world, which a bare run is not."""
        floors = turns[FLOOR]
        below = [0.0] * len(floors) if other == _RAW else floors
        rows = zip(turns[name], floors, turns[other], below, strict=True)
        quotients = [ratio(over - hello, under - least) for over, hello, under, least in rows]
        known = [each for each in quotients if each is not None]
        return round(statistics.median(known), 3) if known else None

    return {
        "p50_us": round(statistics.median(pooled[OURS]) - floor, 1),
        "p99_us": round(_p99(pooled[OURS]) - floor, 1),
        "lean_us": round(statistics.median(pooled[OURS_LEAN]) - floor, 1),
        "lean_p99_us": round(_p99(pooled[OURS_LEAN]) - floor, 1),
        "usual_us": round(statistics.median(pooled[USUAL]) - floor, 1),
        "usual_p99_us": round(_p99(pooled[USUAL]) - floor, 1),
        "hello_us": round(floor, 1),
        "raw_us": round(statistics.median(pooled[_RAW]), 2),
        "ratio": quotient(OURS, USUAL),
        "lean_ratio": quotient(OURS_LEAN, USUAL),
        "over_raw": quotient(OURS, _RAW),
        "lean_over_raw": quotient(OURS_LEAN, _RAW),
    }


def _p99(times: Sequence[float]) -> float:
    return float(np.percentile(times, 99, method="inverted_cdf"))  # the nearest rank: one of the times


def _check_agreement(environments: Mapping[str, Environment], subject: Subject, case: Case) -> None:
    """Refuse to compare handlers that do not give the same predictions."""
    outputs = subject.manifest.signatures[subject.manifest.default_signature].outputs
    within = _AGREE_WITHIN if all(spec.dtype.kind == "float" for spec in outputs) else _CODES_WITHIN
    ours = case.read(environments[OURS].invoke(case.event).json(), OURS)
    for name in (OURS_LEAN, USUAL):
        difference = largest_difference(ours, case.read(environments[name].invoke(case.event).json(), name))
        if not difference <= within:
            raise BenchError(f"{OURS} and {name} differ by {difference:g} on {case.name}; at most {within} is noise")


def show(result: dict[str, Any]) -> None:
    """Print the table of `bench warm`."""
    rows = [
        (
            name,
            f"{case['p50_us']:.0f}",
            f"{case['p99_us']:.0f}",
            f"{case['lean_us']:.0f}",
            f"{case['usual_us']:.0f}",
            f"{case['raw_us']:.0f}",
            "-" if case["ratio"] is None else f"{case['ratio']:.2f}",
            "-" if case["over_raw"] is None else f"{case['over_raw']:.2f}",
            f"{case['hello_us']:.0f}",
        )
        for name, case in result["cases"].items()
    ]
    headings = ("case", "p50 µs", "p99 µs", "lean µs", "usual µs", "raw µs", "÷ usual", "÷ raw", "hello µs")
    notes = [
        f"{result['invokes']} invokes each, in turns of {result['block']}, of MobileNetV2 a tenth in turns of a tenth; "
        "all but raw on top of hello world's p50; ratios are medians of the turns'",
        *show_explanations(result["explanations"]),
    ]
    show_table(headings, rows, result, notes)
