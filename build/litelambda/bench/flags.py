"""The flags that the benchmarks share."""

from __future__ import annotations

import argparse
from pathlib import Path

from litelambda.paths import DEFAULT_STORE


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare what is served, from where, and by which package."""
    parser.add_argument("--model", default="mnist_mlp", metavar="NAME", help="model to serve (default: mnist_mlp)")
    parser.add_argument(
        "--store", default=DEFAULT_STORE, metavar="URL", help="store that has it (default: models/ here)"
    )
    parser.add_argument("--package", type=Path, metavar="DIR", help="unpacked deployment package to measure as it is")
