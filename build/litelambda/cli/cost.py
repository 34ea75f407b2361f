"""`litelambda cost`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from litelambda.cli.options import PATH, json_option, print_json, store_option
from litelambda.common.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from litelambda.costs.case import Case

_STARTS, _INVOKES = 11, 1000
_LIKE_S3 = (30.0, 80.0)  # milliseconds to the first byte, MB per second
_HANDLERS = "hello,litelambda_lean"

_LOAD_OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("model", required=False, metavar="[MODEL]", help="A model to measure now, instead of --bench."),
    store_option(),
    click.option(
        "--bench",
        type=PATH,
        multiple=True,
        metavar="FILE.json",
        help="What `bench cold --json` and `bench warm --json` wrote, and `batch` for --batch-rows; give several.",
    ),
    click.option(
        "--case", "case_name", default="json_1_row", metavar="NAME", help="The request of bench warm to bill."
    ),
    click.option("--requests", type=float, required=True, metavar="N", help="Requests a month."),
    click.option(
        "--shape",
        default="flat",
        metavar="NAME",
        help="When in the day: flat, office (9 to 17 o'clock), peak (one hour), or 24 numbers with commas.",
    ),
    click.option(
        "--request-bytes", type=int, metavar="N", help="Body of a request.", show_default="the event that was measured"
    ),
    click.option("--response-bytes", type=int, default=1000, metavar="N", help="Body of an answer."),
    click.option(
        "--cold-share", type=float, metavar="SHARE", help="Requests that start cold, 0 to 1.", show_default="computed"
    ),
    click.option("--idle-s", type=float, default=600.0, metavar="S", help="How long an idle environment is kept."),
    click.option("--batch-rows", type=float, default=0.0, metavar="N", help="Rows a month that are scored in batches."),
    click.option("--arch", type=click.Choice(["arm64", "x86_64"]), default="arm64", help="Processor."),
    click.option("--region", default="us-east-1", metavar="REGION", help="Region of AWS whose prices to take."),
    click.option("--prices", type=PATH, metavar="FILE.toml", help="Prices of your own, in place of the table's."),
    click.option("--free-tier", is_flag=True, help="Count what is free each month, as if nothing else used it."),
    click.option(
        "--cpu-factor",
        type=float,
        default=1.0,
        metavar="X",
        help="How many times as long a vCPU takes as a core of the machine that measured.",
    ),
    click.option("--log-bytes", type=int, default=300, metavar="N", help="What a request writes to the log."),
    click.option("--metrics", type=int, default=1, metavar="N", help="Metrics of CloudWatch, each in every hour."),
]


def load_options(function: Any) -> Any:
    """The options that describe an artifact and its load, of `cost` and `choose`."""
    for option in reversed(_LOAD_OPTIONS):
        function = option(function)
    return function


@click.command()
@load_options
@click.option("--memory", type=int, metavar="MB", help="Of the function.", show_default="the recommended size")
@click.option(
    "--latency-ms", type=float, metavar="MS", help="Recommend only sizes whose warm 99th percentile is not above."
)
@click.option("--chart", type=PATH, metavar="FILE", help="Also draw what each platform costs by load, as .svg or .png.")
@json_option
def command(memory: int | None, latency_ms: float | None, chart: Path | None, as_json: bool, **options: Any) -> None:
    """Price this artifact under a load, on Lambda and elsewhere."""
    from litelambda.costs.estimate import make_estimate
    from litelambda.costs.estimate_output import describe, to_json

    if chart is not None:
        from litelambda.bench.charts import check_chart_path
        from litelambda.common.extras import require_extra

        check_chart_path(chart)
        require_extra("bench")
    estimate = make_estimate(make_case(**options), memory_mb=memory, latency_ms=latency_ms)
    if chart is not None:
        from litelambda.bench.charts import draw_costs

        draw_costs(estimate, chart)
    if as_json:
        print_json(to_json(estimate))
    else:
        print(describe(estimate))


def make_case(
    model: str | None,
    store: str,
    bench: tuple[Path, ...],
    case_name: str,
    requests: float,
    shape: str,
    request_bytes: int | None,
    region: str,
    prices: Path | None,
    arch: str,
    free_tier: bool,
    cpu_factor: float,
    log_bytes: int,
    metrics: int,
    **load_fields: Any,
) -> Case:
    """The artifact, the load and the prices that the options describe.

    Raises:
        UsageError: an option has a value that cannot be, or an artifact is neither given nor measured.
    """
    from litelambda.costs.case import Case
    from litelambda.costs.load import Load, parse_shape
    from litelambda.costs.measured import make_profile, read_documents
    from litelambda.costs.prices import load_prices

    if (model is None) == (not bench):
        raise UsageError("give either MODEL, which is measured now, or --bench FILE.json of a measurement")
    table, hours = load_prices(region, prices), parse_shape(shape)
    documents = read_documents(bench) if model is None else _measure(model, store)
    profile = make_profile(documents, case_name)
    size = profile.event_bytes if request_bytes is None else request_bytes
    load = Load(requests, hours, size, **load_fields)
    return Case(
        load,
        profile,
        table,
        architecture=arch,
        free_tier=free_tier,
        cpu_factor=cpu_factor,
        log_bytes=log_bytes,
        metrics=metrics,
    )


def _measure(model: str, store: str) -> list[dict[str, Any]]:
    """Run `bench cold`, with a store as slow as S3, and `bench warm`."""
    from litelambda.bench.cold import benchmark as cold
    from litelambda.bench.warm import benchmark as warm

    return [
        cold.run(cold.Options(model, store, None, _STARTS, *_LIKE_S3, _HANDLERS, peers=False, chart=None)),
        warm.run(warm.Options(model, store, None, _INVOKES, None)),
    ]
