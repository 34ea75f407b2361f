"""What a benchmark needs of the machine, said in one sentence when it is missing."""

from __future__ import annotations

import sys

from litelambda.common.errors import BenchError
from litelambda.common.extras import require_extra


def require_runtime() -> None:
    """Check that the real runtime client and what the peer handlers import can run here.

    Raises:
        BenchError: This is not Linux.
        UsageError: A package is missing; the message says what to install.
    """
    if not sys.platform.startswith("linux"):
        raise BenchError(
            f"the benchmarks start Lambda's own runtime client, which runs on Linux only, not {sys.platform}"
        )
    require_extra("bench")
