"""`litelambda bench`: its benchmarks, and the flags of each."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import click

from litelambda.cli.options import PATH, json_option, print_json, store_option
from litelambda.common.interrupts import interrupts_noted

_CHART = click.option("--chart", type=PATH, metavar="FILE", help="Also draw the result, as .svg or .png.")
_LATENCY = click.option(
    "--store-latency-ms",
    type=float,
    default=0.0,
    metavar="MS",
    help="Time to first byte of the loopback S3; S3 itself takes about 30.",
)
_BANDWIDTH = click.option(
    "--store-mb-per-s",
    type=float,
    show_default="unlimited",
    metavar="MB",
    help="Bandwidth of each stream of the loopback S3; S3 itself gives about 80.",
)
_PACKAGE = click.option("--package", type=PATH, metavar="DIR", help="Unpacked deployment package to measure as it is.")


def _counts(text: str) -> tuple[int, ...]:
    counts = text.split(",")
    if not all(each.isdecimal() and 1 <= int(each) <= 1024 for each in counts):
        raise click.BadParameter(f"{text!r} is not a list of numbers from 1 to 1024: 1,16,64")
    return tuple(map(int, counts))


@click.group(no_args_is_help=True)
def command() -> None:
    """Measure cold starts, requests, batches and conversions."""


@command.command()
@click.option("--model", default="mnist_mlp", metavar="NAME", help="Model to serve.")
@store_option()
@_PACKAGE
@click.option("--runs", type=int, default=11, metavar="N", help="Counted starts of each handler.")
@_LATENCY
@_BANDWIDTH
@click.option("--handlers", metavar="A,B,…", show_default="all except the peers", help="Only these, in this order.")
@click.option(
    "--peers",
    is_flag=True,
    help="Also tflite-runtime, ONNX Runtime and TensorFlow: made on first use, and slow to start.",
)
@_CHART
@json_option
def cold(as_json: bool, **options: Any) -> None:
    """Time every handler from the start of its process to ready."""
    _measure("cold", options, as_json=as_json)


@command.command()
@click.option("--model", metavar="NAME", show_default="mnist_mlp, and after it a MobileNetV2", help="Model to serve.")
@store_option()
@_PACKAGE
@click.option(
    "--invokes",
    type=int,
    default=1000,
    metavar="N",
    help="Counted invokes of each handler and case, a tenth for MobileNetV2.",
)
@_CHART
@json_option
def warm(as_json: bool, **options: Any) -> None:
    """Time requests to handlers that are up."""
    _measure("warm", options, as_json=as_json)


@command.command()
@click.option("--model", default="mnist_mlp", metavar="NAME", help="Model to score with.")
@store_option()
@click.option("--rows", type=int, default=409_600, metavar="N", help="Rows of the larger .npy file.")
@click.option("--runs", type=int, default=3, metavar="N", help="Times each process is started again.")
@click.option("--seconds", type=float, default=60.0, metavar="S", help="How long they take turns each time.")
@json_option
def batch(as_json: bool, **options: Any) -> None:
    """Time rows through the batch engine, on one core."""
    _measure("batch", options, as_json=as_json)


@command.command()
@click.option(
    "--curve",
    "curves",
    type=click.Choice(["models", "rows", "size"]),
    multiple=True,
    default=("models", "rows", "size"),
    show_default="all",
    help="Only this one: models in the store, rows of a request, size of the model; may be given several times.",
)
@click.option(
    "--runs", type=int, default=5, metavar="N", help="Counted starts at each point, and a quarter of the requests."
)
@click.option("--largest-mb", type=float, default=400.0, metavar="MB", help="Models no larger than this.")
@click.option("--most-models", type=int, default=10_000, metavar="N", help="Stores with no more models than this.")
@_LATENCY
@_BANDWIDTH
@_CHART
@json_option
def growth(as_json: bool, **options: Any) -> None:
    """Time how a function grows with its store, its requests and its model."""
    _measure("growth", options, as_json=as_json)


@command.command()
@click.argument("names", nargs=-1, metavar="[NAME]…", help="More models or families, after one of --model.")
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    show_default="the small ones of keras.applications, and every kind of layer",
    help="Only this model or family; may be given several times.",
)
@click.option("--all", "every", is_flag=True, help="Also the large ones of keras.applications: hours.")
@click.option(
    "--image-size",
    type=int,
    metavar="PIXELS",
    show_default="what each was made for",
    help="At most so many pixels per side for keras.applications.",
)
@click.option("--markdown", type=PATH, metavar="FILE", help="Also write the tables there, as documentation.")
@click.option(
    "--state",
    type=PATH,
    default=Path(".bench", "conversion.json"),
    metavar="FILE",
    help="Rows made so far: an interrupted run resumes there.",
)
@click.option("--fresh", is_flag=True, help="Convert again what the state file has.")
@click.option("--memory-gb", type=float, default=12.0, metavar="GB", help="Memory of each conversion.")
@click.option("--timeout-s", type=float, default=1800.0, metavar="S", help="Time of each conversion.")
@json_option
def conversion(names: tuple[str, ...], models: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Convert every architecture and kind of layer."""
    _measure("conversion", {"models": [*models, *names], **options}, as_json=as_json)


@command.command()
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("mnist_mlp",),
    metavar="NAME",
    help="Model to serve; several are asked in turn.",
)
@store_option()
@click.option(
    "--clients",
    type=_counts,
    default="1,4,16,64",
    metavar="N,N,…",
    help="Clients that ask one request after the other, one load after the other.",
)
@click.option(
    "--share",
    type=float,
    default=0.7,
    metavar="S",
    help="Then requests arrive, by chance and evenly, this share of the most that were answered in a second.",
)
@click.option("--seconds", type=float, default=10.0, metavar="S", help="How long each load lasts.")
@click.option("--requests", type=int, metavar="N", help="Requests of each load of clients, instead of a time.")
@click.option("--cores", type=int, metavar="N", show_default="all", help="Cores that each server may use.")
@click.option("--peers", is_flag=True, help="Also MLServer and LitServe: made on first use.")
@json_option
def load(as_json: bool, **options: Any) -> None:
    """Ask servers by many clients at once."""
    _measure("load", options, as_json=as_json)


def _measure(benchmark: str, options: dict[str, Any], *, as_json: bool) -> None:
    module = importlib.import_module(f"litelambda.bench.{benchmark}.benchmark")
    with interrupts_noted():
        result = module.run(module.Options(**options))
    if as_json:
        print_json(result)
    else:
        module.show(result)
