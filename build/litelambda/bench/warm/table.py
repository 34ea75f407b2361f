"""The table of `litelambda bench warm`, on a terminal. Knows results, not how they were made."""

from __future__ import annotations

from typing import Any

from litelambda.bench.report import show_table


def show(result: dict[str, Any]) -> None:
    """Print the table of `bench warm`."""
    rows = [
        (
            name,
            f"{case['p50_us']:.0f}",
            f"{case['p99_us']:.0f}",
            f"{case['lean_us']:.0f}",
            f"{case['usual_us']:.0f}",
            f"{case['raw_us']:.0f}",
            "-" if case["ratio"] is None else f"{case['ratio']:.2f}",
            "-" if case["over_raw"] is None else f"{case['over_raw']:.2f}",
            f"{case['hello_us']:.0f}",
        )
        for name, case in result["cases"].items()
    ]
    headings = ("case", "p50 µs", "p99 µs", "lean µs", "usual µs", "raw µs", "÷ usual", "÷ raw", "hello µs")
    notes = [
        f"{result['invokes']} invokes each, in turns of {result['block']}; all but raw on top of hello world's p50"
    ]
    show_table(headings, rows, result, notes)
