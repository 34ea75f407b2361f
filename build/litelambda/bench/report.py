"""What all benchmarks report: ratios, the machine they were measured on, and a table for a person."""

from __future__ import annotations

import os
import platform
import resource
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

_PACKAGES = ("awslambdaric", "obstore", "ai-edge-litert", "boto3", "numpy", "aws-lambda-powertools")
_MIN_WIDTH = 100  # where there is no terminal, rich would take 80 columns and cut figures off


def ratio(numerator: float, denominator: float) -> float | None:
    """A quotient for a report, or None where the denominator is not a positive time and so no ratio holds."""
    return round(numerator / denominator, 3) if denominator > 0 else None


def describe_machine() -> dict[str, Any]:
    """The processor, the system, the interpreter, the day, and the versions of the packages that handlers import.

    Without them a figure means nothing; with them two reports can be told apart.
    """
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "system": platform.platform(aliased=True),
        "python": platform.python_version(),
        "measured": datetime.now(UTC).date().isoformat(),
        "packages": {name: _version(name) for name in _PACKAGES},
    }


def peak_rss_mb(process: int | None = None) -> float:
    """The largest resident set so far, in Lambda's MB (2^20 bytes), of a process; of this one unless another is named.

    On Linux not from getrusage: after a fork, that has the parent's peak where it was higher.
    """
    status = Path(f"/proc/{process or 'self'}/status")
    if not process and not status.exists():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 / 1024
    peak = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
    return int(peak.split()[1]) / 1024


def _cpu_name() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def show_table(
    headings: Sequence[str],
    rows: Sequence[Sequence[str]],
    result: dict[str, Any],
    notes: Sequence[str],
    title: str | None = None,
) -> None:
    """Print a table with a title, the model unless there is another, and below it notes and the machine."""
    # Here, so that neither `--json` nor another command waits for rich.
    from rich import box
    from rich.console import Console
    from rich.table import Table

    model, machine = result["model"], result["machine"]
    table = Table(
        title=title or f"{model['name']} version {model['version']}, artifact of {model['artifact_bytes']:,} bytes",
        box=box.SIMPLE,
    )
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index else "left", no_wrap=not index)
    for row in rows:
        table.add_row(*row)
    console = Console()
    console.width = max(console.width, _MIN_WIDTH)
    console.print(table)
    for note in [*notes, *result["notes"]]:
        console.print(note, highlight=False)
    console.print(f"{machine['cpu']}, {machine['cores']} cores, Python {machine['python']}", highlight=False)
