"""`litelambda bench growth`: how a function's times grow with its store, its requests and its model.

    litelambda bench growth --chart growth.svg
    litelambda bench growth --curve size --largest-mb 100

Three curves, each of medians that were measured in turn in one run: models in the store against `/openapi.json`, V2's
index and INIT; rows of a request against its time; a model's size against INIT and memory. The last two beside the
usual handler. How times grow with clients that ask at once, `litelambda bench load` measures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litelambda.bench.charts import check_chart_path, draw_growth
from litelambda.bench.contenders import FLOOR, OURS_LEAN, USUAL, Contender, choose, contenders_for
from litelambda.bench.emulator.environment import Environment
from litelambda.bench.events import http_event
from litelambda.bench.growth.made_models import make_documents, make_flatbuffer, make_subject
from litelambda.bench.report import describe_machine, show_table
from litelambda.bench.subject import Subject, first_event, make_rows, predict_event, read_predictions
from litelambda.bench.workplace import Workplace, require_runtime
from litelambda.common.errors import BenchError, UsageError
from litelambda.common.progress import open_reporter

_NAME = "made"
_PINNED = "litelambda_lean_pinned"
_SMALL_BYTES = 100_000
_MODEL_COUNTS = (10, 100, 1_000, 10_000)
_ROW_COUNTS = (1, 4, 16, 64, 256, 640)  # Lambda takes 6 MB, which are some 700 rows of 784 numbers
_SIZES_MB = (0.1, 1, 10, 100, 400)
_INVOKES_PER_RUN = 4
_MEMORY_MB = 3_008  # what the largest model needs in the usual handler, and then some
_TIMEOUT_S = 300.0
_GROWS = {"models": "models", "rows": "rows", "size": "MB"}
_TABLES = {
    "models": (
        "models in the store",
        {
            "init_ms": "INIT ms",
            "index_ms": "index ms",
            "index_again_ms": "index again ms",
            "openapi_ms": "/openapi.json ms",
        },
    ),
    "rows": (
        "rows of a request, on top of hello world",
        {"event_mb": "event MB", f"{OURS_LEAN}_ms": "litelambda ms", f"{USUAL}_ms": "usual ms"},
    ),
    "size": (
        "size of the model",
        {
            f"{FLOOR}_init_ms": "hello world INIT ms",
            f"{OURS_LEAN}_init_ms": "litelambda INIT ms",
            f"{_PINNED}_init_ms": "pinned INIT ms",
            f"{USUAL}_init_ms": "usual INIT ms",
            f"{OURS_LEAN}_peak_mb": "litelambda peak MB",
            f"{USUAL}_peak_mb": "usual peak MB",
        },
    ),
}
"""By curve: the title of its table, and the columns of it."""


@dataclass(frozen=True)
class Options:
    """What is measured and how: `litelambda bench growth --help` says what each means."""

    curves: tuple[str, ...]
    runs: int
    largest_mb: float
    most_models: int
    store_latency_ms: float
    store_mb_per_s: float | None
    chart: Path | None


def run(options: Options) -> dict[str, Any]:
    """Run the benchmark.

    Returns:
        `curves` by name: a list of points, each with what grows (`models`, `rows` or `size_mb`) and the medians at it;
        and what they were measured on.

    Raises:
        BenchError: a handler failed.
        UsageError: a flag has an impossible value.
    """
    if options.runs < 1 or options.largest_mb < _SIZES_MB[0] or options.most_models < _MODEL_COUNTS[0]:
        raise UsageError(
            f"bench growth takes --runs >= 1, --largest-mb >= {_SIZES_MB[0]} and --most-models >= {_MODEL_COUNTS[0]}"
        )
    check_chart_path(options.chart)
    require_runtime()
    measure = {"models": _measure_models, "rows": _measure_rows, "size": _measure_sizes}
    curves: dict[str, list[dict[str, Any]]] = {}
    with open_reporter(terminal_only=True, animated=False).stage("growth") as stage:
        for index, curve in enumerate(options.curves):
            curves[curve] = []
            for share, point in measure[curve](options):
                curves[curve].append(point)
                stage.progress((index + share) / len(options.curves), curve)
    result = {
        "curves": curves,
        "runs": options.runs,
        "store": {"latency_ms": options.store_latency_ms, "mb_per_s": options.store_mb_per_s},
        "notes": [],
        "model": make_subject(_NAME, make_flatbuffer(_SMALL_BYTES)).describe(),
        "machine": describe_machine(),
    }
    if options.chart:
        draw_growth(result, options.chart)
    return result


def _measure_models(options: Options) -> Iterator[tuple[float, dict[str, Any]]]:
    """INIT, the first and the next index, and `/openapi.json`, with more and more models in the store."""
    small = make_subject(_NAME, make_flatbuffer(_SMALL_BYTES))
    counts = [count for count in _MODEL_COUNTS if count <= options.most_models]
    for index, count in enumerate(counts):
        others: dict[str, bytes] = {}
        for number in range(count - 1):
            others |= make_documents(f"other_{number:05}", small.manifest.fields)
        subject = replace(small, objects={**small.objects, **others})
        index_event = http_event("/v2/repository/index", {"content-type": "application/json"}, b"")
        openapi_event = http_event("/openapi.json", {}, b"", method="GET")
        times: dict[str, list[float]] = {"init_ms": [], "index_ms": [], "index_again_ms": [], "openapi_ms": []}
        with _workplace(subject, options) as workplace:
            (contender,) = _with_memory(choose(contenders_for(subject), OURS_LEAN))
            for _ in range(options.runs):
                with workplace.start(contender) as environment:
                    times["init_ms"].append(environment.init_ms)
                    for name, event in (("index_ms", index_event), ("index_again_ms", index_event)):
                        times[name].append(_timed(environment, event))
                with workplace.start(contender) as environment:
                    times["openapi_ms"].append(_timed(environment, openapi_event))
        yield (index + 1) / len(counts), {"models": count, **_medians(times)}


def _measure_rows(options: Options) -> Iterator[tuple[float, dict[str, Any]]]:
    """A JSON predict of more and more rows, on top of what hello world takes for the same event."""
    subject = make_subject(_NAME, make_flatbuffer(_SMALL_BYTES))
    rows = make_rows(subject.inputs, _ROW_COUNTS[-1])
    with _workplace(subject, options) as workplace, ExitStack() as stack:
        contenders = _with_memory(choose(contenders_for(subject), f"{FLOOR},{OURS_LEAN},{USUAL}"))
        started = {each.name: stack.enter_context(workplace.start(each)) for each in contenders}
        for index, count in enumerate(_ROW_COUNTS):
            event = predict_event(_NAME, rows[:count])
            times: dict[str, list[float]] = {name: [] for name in started}
            for invoke in range(_INVOKES_PER_RUN * options.runs + 2):
                for name, environment in started.items():
                    answer = environment.invoke(event, timeout_s=_TIMEOUT_S)
                    if name != FLOOR:
                        read_predictions(answer.json(), count, name)
                    if invoke >= 2:  # the first ones size buffers
                        times[name].append(answer.ms)
            medians = _medians(times)
            point = {"rows": count, "event_mb": round(len(event) / 1e6, 3)}
            point |= {f"{name}_ms": round(medians[name] - medians[FLOOR], 3) for name in (OURS_LEAN, USUAL)}
            yield (index + 1) / len(_ROW_COUNTS), point


def _measure_sizes(options: Options) -> Iterator[tuple[float, dict[str, Any]]]:
    """INIT and memory with a larger and larger model."""
    sizes = [size for size in _SIZES_MB if size <= options.largest_mb]
    for index, size in enumerate(sizes):
        subject = make_subject(_NAME, make_flatbuffer(int(size * 1e6)))
        event = first_event(subject)
        contenders = _with_memory(choose(contenders_for(subject), f"{FLOOR},{OURS_LEAN},{_PINNED},{USUAL}"))
        times: dict[str, list[float]] = {}
        with _workplace(subject, options) as workplace:
            for round_number in range(options.runs + 1):
                for contender in contenders:
                    with workplace.start(contender, cache_bytecode=not round_number) as environment:
                        answer = environment.invoke(event, timeout_s=_TIMEOUT_S)
                        if contender.name != FLOOR:
                            read_predictions(answer.json(), 1, contender.name)
                        if round_number:
                            measured = {
                                "init_ms": environment.init_ms,
                                "first_ms": answer.ms,
                                "peak_mb": environment.peak_rss_mb(),
                            }
                            for name, value in measured.items():
                                times.setdefault(f"{contender.name}_{name}", []).append(value)
        yield (index + 1) / len(sizes), {"size_mb": size, **_medians(times)}


def _workplace(subject: Subject, options: Options) -> Workplace:
    bandwidth = options.store_mb_per_s * 1e6 if options.store_mb_per_s else None
    return Workplace(subject, latency_ms=options.store_latency_ms, bytes_per_second=bandwidth)


def _with_memory(contenders: Sequence[Contender]) -> list[Contender]:
    size = {"AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(_MEMORY_MB)}
    return [replace(each, settings={**each.settings, **size}) for each in contenders]


def _timed(environment: Environment, event: bytes) -> float:
    started = time.perf_counter()
    answer = environment.invoke(event, timeout_s=_TIMEOUT_S).json()
    took = (time.perf_counter() - started) * 1000
    if not isinstance(answer, dict) or answer.get("statusCode") != 200:
        raise BenchError(f"the function answered {str(answer)[:500]}")
    return took


def _medians(times: dict[str, list[float]]) -> dict[str, float]:
    return {name: round(statistics.median(values), 3) for name, values in times.items()}


def show(result: dict[str, Any]) -> None:
    """Print a table for each curve of `bench growth`."""
    store = result["store"]
    speed = f"{store['mb_per_s']:g} MB/s a stream" if store["mb_per_s"] else "as fast as loopback"
    notes = [f"medians of {result['runs']} starts; S3 on loopback, {store['latency_ms']:g} ms, {speed}"]
    for curve, points in result["curves"].items():
        title, columns = _TABLES[curve]
        rows = [[f"{value:,g}", *(f"{point[name]:,.1f}" for name in columns)] for value, point in _by_first(points)]
        show_table([_GROWS[curve], *columns.values()], rows, result, notes, title)


def _by_first(points: Sequence[dict[str, Any]]) -> Iterator[tuple[float, dict[str, Any]]]:
    """Each point with the value of what grows, its first."""
    for point in points:
        yield next(iter(point.values())), point
