"""The flags of the benchmarks, apart from what runs them: declaring them must not slow every other command down."""

from __future__ import annotations

import argparse
from pathlib import Path

from litelambda.common.paths import DEFAULT_STORE, store_url


def add_cold_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `bench cold`, but for `--json`, which all commands share."""
    _add_model_arguments(parser, default="mnist_mlp", meaning="model to serve (default: mnist_mlp)")
    parser.add_argument(
        "--runs", type=int, default=11, metavar="N", help="counted starts of each handler (default: 11)"
    )
    parser.add_argument(
        "--store-latency-ms", type=float, default=0.0, metavar="MS",
        help="time to first byte of the loopback S3; S3 itself takes about 30 (default: 0)",
    )  # fmt: skip
    parser.add_argument(
        "--store-mb-per-s", type=float, default=None, metavar="MB",
        help="bandwidth of each stream of the loopback S3; S3 itself gives about 80 (default: unlimited)",
    )  # fmt: skip
    parser.add_argument("--handlers", metavar="A,B,…", help="only these, in this order (default: all but the peers)")
    parser.add_argument(
        "--peers", action="store_true",
        help="also tflite-runtime, ONNX Runtime and TensorFlow: made on first use, and slow to start",
    )  # fmt: skip
    _add_chart_argument(parser)


def add_warm_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `bench warm`, but for `--json`."""
    _add_model_arguments(parser, default=None, meaning="model to serve (default: mnist_mlp, and a MobileNetV2 beside)")
    parser.add_argument(
        "--invokes",
        type=int,
        default=1000,
        metavar="N",
        help="counted invokes of each handler and case, a tenth for MobileNetV2 (default: 1000)",
    )
    _add_chart_argument(parser)


def add_batch_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `bench batch`, but for `--json`."""
    parser.add_argument("--model", default="mnist_mlp", metavar="NAME", help="model to score with (default: mnist_mlp)")
    parser.add_argument(
        "--store",
        default=DEFAULT_STORE,
        type=store_url,
        metavar="URL",
        help="store that has it (default: models/ here)",
    )
    parser.add_argument(
        "--rows", type=int, default=409_600, metavar="N", help="rows of the larger .npy file (default: 409,600)"
    )
    parser.add_argument("--runs", type=int, default=3, metavar="N", help="times each process is made anew (default: 3)")
    parser.add_argument(
        "--seconds", type=float, default=60, metavar="S", help="how long they take turns each time (default: 60)"
    )


def add_conversion_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags of `bench conversion`, but for `--json`."""
    parser.add_argument(
        "--model", nargs="+", metavar="NAME",
        help="only these models or families (default: the small ones of keras.applications, and every kind of layer)",
    )  # fmt: skip
    parser.add_argument("--all", action="store_true", help="also the large ones of keras.applications: hours")
    parser.add_argument(
        "--image-size", type=int, default=None, metavar="PIXELS",
        help="at most so many pixels per side for keras.applications (default: what each was made for)",
    )  # fmt: skip
    parser.add_argument("--markdown", type=Path, metavar="FILE", help="also write the tables there, as documentation")
    parser.add_argument(
        "--state", type=Path, default=Path(".bench", "conversion.json"), metavar="FILE",
        help="rows made so far: an interrupted run resumes there (default: .bench/conversion.json)",
    )  # fmt: skip
    parser.add_argument("--fresh", action="store_true", help="convert again what the state file has")
    parser.add_argument(
        "--memory-gb", type=float, default=12.0, metavar="GB", help="memory of each conversion (default: 12)"
    )
    parser.add_argument(
        "--timeout-s", type=float, default=1800.0, metavar="S", help="time of each conversion (default: 1800)"
    )


def _add_model_arguments(parser: argparse.ArgumentParser, *, default: str | None, meaning: str) -> None:
    parser.add_argument("--model", default=default, metavar="NAME", help=meaning)
    parser.add_argument(
        "--store",
        default=DEFAULT_STORE,
        type=store_url,
        metavar="URL",
        help="store that has it (default: models/ here)",
    )
    parser.add_argument("--package", type=Path, metavar="DIR", help="unpacked deployment package to measure as it is")


def _add_chart_argument(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chart", type=Path, metavar="FILE", help="also draw the result, as .svg or .png")
