"""`litelambda bench cold`: how long each handler takes from the start of its process to being ready for an event.

    litelambda bench cold --model mnist_mlp --runs 15 --store-latency-ms 30
    litelambda bench cold --peers --runs 5 --chart cold-start.svg

All handlers run in the real runtime client, one process at a time, in turn (A B C A B C …), after one round that is not
counted. Times are medians of the same run; only their ratios carry over to another machine.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from litelambda.bench.charts import check_chart_path, draw_cold
from litelambda.bench.contenders import (
    FLOOR,
    OURS,
    OURS_BUNDLED,
    OURS_LEAN,
    USUAL,
    Contender,
    choose,
    contenders_for,
)
from litelambda.bench.report import describe_machine, ratio, show_table
from litelambda.bench.subject import Subject, first_event, load_subject, read_predictions
from litelambda.bench.workplace import Workplace, require_runtime
from litelambda.common.errors import UsageError
from litelambda.common.progress import open_reporter

_ROWS = 1
_BUSY = 1.5


@dataclass
class _Timings:
    init_ms: list[float] = field(default_factory=list)
    first_ms: list[float] = field(default_factory=list)
    rss_mb: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Options:
    """What is measured and how: `litelambda bench cold --help` says what each means."""

    model: str
    store: str
    package: Path | None
    runs: int
    store_latency_ms: float
    store_mb_per_s: float | None
    handlers: str | None
    peers: bool
    chart: Path | None


def run(options: Options) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        `handlers` by name with `init_ms`, `first_ms` and `rss_mb`, the `ratios` of their medians and
        `ratios_of_fastest` of their smallest values, and what they were measured on.

    Raises:
        BenchError: the model is not in the store, or a handler failed.
        UsageError: a flag has an impossible value.
    """
    if (
        options.runs < 1
        or options.store_latency_ms < 0
        or (options.store_mb_per_s is not None and options.store_mb_per_s <= 0)
    ):
        raise UsageError("bench cold takes --runs >= 1, --store-latency-ms >= 0 and --store-mb-per-s > 0")
    check_chart_path(options.chart)
    require_runtime()
    subject = load_subject(options.store, options.model)
    contenders = choose(contenders_for(subject), options.handlers, peers=options.peers)
    bandwidth = options.store_mb_per_s * 1e6 if options.store_mb_per_s else None
    with Workplace(
        subject, package=options.package, latency_ms=options.store_latency_ms, bytes_per_second=bandwidth
    ) as workplace:
        contenders = workplace.prepare(contenders)
        timings = _measure(workplace, contenders, subject, options.runs)
    handlers = {contender.name: _summarize(contender, timings[contender.name]) for contender in contenders}
    result = {
        "handlers": handlers,
        "ratios": _ratios(handlers, "init_ms"),
        "ratios_of_fastest": _ratios(handlers, "init_ms_min"),
        "runs": options.runs,
        "store": {"latency_ms": options.store_latency_ms, "mb_per_s": options.store_mb_per_s},
        "package": str(options.package) if options.package else None,
        "notes": workplace.notes + _noise(handlers),
        "model": subject.describe(),
        "machine": describe_machine(),
    }
    if options.chart:
        draw_cold(result, options.chart)
    return result


def _measure(workplace: Workplace, contenders: Sequence[Contender], subject: Subject, runs: int) -> dict[str, _Timings]:
    event = first_event(subject)
    timings = {contender.name: _Timings() for contender in contenders}
    with open_reporter(terminal_only=True, animated=False).stage("cold starts") as stage:
        for round_number in range(runs + 1):
            for index, contender in enumerate(contenders):
                stage.progress((round_number + index / len(contenders)) / (runs + 1), contender.name)
                warm_up = round_number == 0
                with workplace.start(contender, cache_bytecode=warm_up) as environment:
                    answer = environment.invoke(event)
                    peak_rss_mb = environment.peak_rss_mb()
                if contender.name != FLOOR:
                    read_predictions(answer.json(), _ROWS, contender.name)
                if not warm_up:
                    measured = timings[contender.name]
                    measured.init_ms.append(environment.init_ms)
                    measured.first_ms.append(answer.ms)
                    measured.rss_mb.append(peak_rss_mb)
    return timings


def _summarize(contender: Contender, timings: _Timings) -> dict[str, Any]:
    """The median of each, and its smallest and largest value."""
    summary: dict[str, Any] = {}
    for name, values in asdict(timings).items():
        for suffix, function in (("", statistics.median), ("_min", min), ("_max", max)):
            summary[name + suffix] = round(function(values), 2)
    return {**summary, "title": contender.title}


def _noise(handlers: dict[str, dict[str, Any]]) -> list[str]:
    """Say when the machine was too busy for the figures to mean much."""
    floor = handlers.get(FLOOR)
    if floor is None or floor["init_ms"] <= _BUSY * floor["init_ms_min"]:
        return []
    times = floor["init_ms"] / floor["init_ms_min"]
    return [
        f"the machine was busy: hello world's median is {times:.1f} x its fastest start. Run again when it is idle."
    ]


def _ratios(handlers: dict[str, dict[str, Any]], key: str) -> dict[str, float | None]:
    """Ours over the floor in its three ways, and how much more the usual handler adds to the floor than ours does.

    Of medians, and of the fastest starts, which say more on a machine that others use too.
    """
    init = {name: numbers[key] for name, numbers in handlers.items()}
    if FLOOR not in init:
        return {}
    over_floor = {"init_over_floor": OURS, "lean_over_floor": OURS_LEAN, "bundled_over_floor": OURS_BUNDLED}
    ratios = {key: ratio(init[name], init[FLOOR]) for key, name in over_floor.items() if name in init}
    if OURS in init and USUAL in init:
        ratios["added_vs_usual"] = ratio(init[USUAL] - init[FLOOR], init[OURS] - init[FLOOR])
    return ratios


def show(result: dict[str, Any]) -> None:
    """Print the table of `bench cold`."""
    floor = result["handlers"].get("hello", {}).get("init_ms")
    rows = []
    for name, numbers in result["handlers"].items():
        rows.append(
            (
                name,
                f"{numbers['init_ms']:.1f}",
                f"{numbers['init_ms_min']:.0f}-{numbers['init_ms_max']:.0f}",
                f"{numbers['init_ms'] - floor:+.1f}" if floor and name != "hello" else "",
                f"{numbers['init_ms'] / floor:.2f}" if floor else "",
                f"{numbers['first_ms']:.2f}",
                f"{numbers['rss_mb']:.1f}",
            )
        )
    headings = ("handler", "INIT ms", "min-max", "added", "÷ floor", "first ms", "peak MB")
    ratios = result["ratios"]
    titles = [f"{name}: {numbers['title']}" for name, numbers in result["handlers"].items()]
    notes = [f"median of {result['runs']} starts each, in turn; S3 on loopback, {result['store']['latency_ms']:g} ms"]
    if ratios.get("added_vs_usual"):
        fastest = result["ratios_of_fastest"]["added_vs_usual"]
        of_fastest = f" ({fastest:.1f} x by the fastest starts)" if fastest else ""
        notes.append(
            f"the usual handler adds {ratios['added_vs_usual']:.1f} x what litelambda adds to hello world{of_fastest}"
        )
    show_table(headings, rows, result, [*titles, *notes])
