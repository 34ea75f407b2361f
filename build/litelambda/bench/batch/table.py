"""The table of `litelambda bench batch`, on a terminal. Knows results, not how they were made."""

from __future__ import annotations

from typing import Any

from litelambda.bench.report import show_table


def show(result: dict[str, Any]) -> None:
    """Print the table of `bench batch`."""
    rows = [
        (
            name,
            f"{case['rows_per_s']:,}",
            f"{case['ratio_to_raw']:.2f}",
            f"{case['ratio_to_usual']:.2f}",
            f"{case['batch_size']}",
            f"{case['peak_rss_mb']:.0f}",
            f"{result['scaling'][name]['time_ratio']:.1f}",
            f"{result['scaling'][name]['rss_ratio']:.2f}",
        )
        for name, case in result["cases"].items()
    ]
    headings = (
        "case",
        "rows/s",
        "x raw",
        "x usual",
        "batch",
        "peak MB",
        "10 x rows: time",
        "memory",
    )
    notes = ["rows per second of CPU time, the median of all turns; raw keeps nothing, usual is what people write"]
    show_table(headings, rows, result, notes)
