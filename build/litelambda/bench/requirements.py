"""What a benchmark needs of the machine, said in one sentence when it is missing."""

from __future__ import annotations

import sys
from importlib.util import find_spec

from litelambda.common.errors import BenchError

_NEEDED = ("awslambdaric", "runtime_client", "aws_lambda_powertools", "boto3", "numpy", "ai_edge_litert", "obstore")


def require_runtime() -> None:
    """Check that the real runtime client and what the peer handlers import are installed.

    Raises:
        BenchError: This is no Linux, or a package is missing; the message says what to install.
    """
    if not sys.platform.startswith("linux"):
        raise BenchError(
            f"the benchmarks start Lambda's own runtime client, which runs on Linux only, not {sys.platform}"
        )
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise BenchError(f"the benchmarks need {', '.join(missing)}: run `make setup`, or install litelambda[bench]")
