"""`litelambda bench warm`: what a prediction costs once the function runs.

    litelambda bench warm --invokes 2000 --chart warm.svg
    litelambda bench warm --model my_model

The handlers stay up, each in its own process, and are invoked in short blocks in turn. Round trips go through the
runtime clients; what hello world takes for the same event in the stock one is subtracted, so that what is left is what
the handler adds.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.bench.charts import check_chart_path
from litelambda.bench.contenders import FLOOR, OURS, OURS_LEAN, USUAL, choose, contenders_for
from litelambda.bench.emulator.environment import Environment
from litelambda.bench.machine import describe_machine
from litelambda.bench.report import Progress
from litelambda.bench.requirements import require_runtime
from litelambda.bench.subject import Subject, largest_difference, load_subject
from litelambda.bench.summary import percentile, ratio
from litelambda.bench.warm.bare_run import bare_run
from litelambda.bench.warm.cases import Case, make_cases
from litelambda.bench.warm.chart import draw
from litelambda.bench.warm.mobilenet import NAME as MOBILENET
from litelambda.bench.warm.mobilenet import mobilenet_store
from litelambda.bench.workplace import Workplace
from litelambda.common.errors import BenchError, UsageError

DEFAULT_MODEL = "mnist_mlp"
_ROW_COUNTS = (1, 32)
_BLOCK = 50
_WARM_UP = 100
_MOBILENET_SHARE = 10  # a request takes some ten times longer, so that a tenth of them do
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
        the usual handler and `over_raw` to the bare run; and what they were measured on.

    Raises:
        BenchError: The model is not in the store, a handler failed, or two handlers disagree.
        UsageError: A flag has an impossible value.
    """
    if options.invokes < 1:
        raise UsageError(f"bench warm takes --invokes >= 1, not {options.invokes}")
    check_chart_path(options.chart)
    require_runtime()
    subject = load_subject(options.store, options.model or DEFAULT_MODEL)
    plan = [(subject, make_cases(subject, _ROW_COUNTS), options.invokes)]
    if options.model is None:
        large = load_subject(mobilenet_store(), MOBILENET)
        plan.append((large, make_cases(large, (1,), f"{MOBILENET}_"), -(-options.invokes // _MOBILENET_SHARE)))
    cases: dict[str, Any] = {}
    notes: list[str] = []
    with Progress(
        "warm invokes", sum(len(each) * -(-invokes // _BLOCK) for _subject, each, invokes in plan)
    ) as progress:
        for each, each_cases, invokes in plan:
            cases |= _measure(each, each_cases, invokes, options.package, progress, notes)
    result = {
        "cases": cases,
        "invokes": options.invokes,
        "block": _BLOCK,
        "package": str(options.package) if options.package else None,
        "notes": sorted(set(notes)),
        "model": subject.describe(),
        "machine": describe_machine(),
    }
    if options.chart:
        draw(result, options.chart)
    return result


def _measure(
    subject: Subject, cases: Sequence[Case], invokes: int, package: Path | None, progress: Progress, notes: list[str]
) -> dict[str, Any]:
    contenders = choose(contenders_for(subject), f"{FLOOR},{OURS},{OURS_LEAN},{USUAL}")
    with Workplace(subject, package=package) as workplace, ExitStack() as stack:
        started = {each.name: stack.enter_context(workplace.start(each)) for each in contenders}
        measured = {case.name: _measure_case(started, subject, case, invokes, progress) for case in cases}
        notes += workplace.notes
    return measured


def _measure_case(
    environments: Mapping[str, Environment], subject: Subject, case: Case, invokes: int, progress: Progress
) -> dict[str, Any]:
    _check_agreement(environments, subject, case)
    times: dict[str, list[float]] = {each: [] for each in (*environments, _RAW)}
    for environment in environments.values():
        for _index in range(min(_WARM_UP, invokes)):
            environment.invoke(case.event)
    with bare_run(subject, case.num_rows) as bare:
        for start in range(0, invokes, _BLOCK):
            progress.step(case.name)
            turn = range(min(_BLOCK, invokes - start))
            for each, environment in environments.items():
                times[each] += [environment.invoke(case.event).ms * 1000 for _index in turn]
            times[_RAW] += [bare.time_us() for _index in turn]
    return _summarise(times) | {"event_bytes": len(case.event)}


def _summarise(times: Mapping[str, Sequence[float]]) -> dict[str, Any]:
    floor, raw = statistics.median(times[FLOOR]), statistics.median(times[_RAW])
    ours, lean, usual = (statistics.median(times[name]) - floor for name in (OURS, OURS_LEAN, USUAL))
    return {
        "p50_us": round(ours, 1),
        "p99_us": round(percentile(times[OURS], 99) - floor, 1),
        "lean_us": round(lean, 1),
        "lean_p99_us": round(percentile(times[OURS_LEAN], 99) - floor, 1),
        "usual_us": round(usual, 1),
        "usual_p99_us": round(percentile(times[USUAL], 99) - floor, 1),
        "hello_us": round(floor, 1),
        "raw_us": round(raw, 2),
        "ratio": ratio(ours, usual),
        "over_raw": ratio(ours, raw),
        "lean_over_raw": ratio(lean, raw),
    }


def _check_agreement(environments: Mapping[str, Environment], subject: Subject, case: Case) -> None:
    """Refuse to compare handlers that do not give the same predictions."""
    outputs = subject.manifest.signatures[subject.manifest.default_signature].outputs
    within = _AGREE_WITHIN if all(spec.dtype.kind == "float" for spec in outputs) else _CODES_WITHIN
    ours = case.read(environments[OURS].invoke(case.event).json(), OURS)
    for name in (OURS_LEAN, USUAL):
        difference = largest_difference(ours, case.read(environments[name].invoke(case.event).json(), name))
        if not difference <= within:
            raise BenchError(f"{OURS} and {name} differ by {difference:g} on {case.name}; at most {within} is noise")
