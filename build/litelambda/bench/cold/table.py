"""The table of `litelambda bench cold`, on a terminal. Knows results, not how they were made."""

from __future__ import annotations

from typing import Any

from litelambda.bench.report import show_table


def show(result: dict[str, Any]) -> None:
    """Print the table of `bench cold`."""
    floor = result["handlers"].get("hello", {}).get("init_ms")
    rows = []
    for name, numbers in result["handlers"].items():
        rows.append(
            (
                name,
                f"{numbers['init_ms']:.1f}",
                f"{numbers['init_ms_min']:.0f}-{numbers['init_ms_max']:.0f}",
                f"{numbers['init_ms'] - floor:+.1f}" if floor and name != "hello" else "",
                f"{numbers['init_ms'] / floor:.2f}" if floor else "",
                f"{numbers['first_ms']:.2f}",
                f"{numbers['rss_mb']:.1f}",
            )
        )
    headings = ("handler", "INIT ms", "min-max", "added", "÷ floor", "first ms", "peak MB")
    ratios = result["ratios"]
    titles = [f"{name}: {numbers['title']}" for name, numbers in result["handlers"].items()]
    notes = [f"median of {result['runs']} starts each, in turn; S3 on loopback, {result['store']['latency_ms']:g} ms"]
    if ratios.get("added_vs_usual"):
        fastest = result["ratios_of_fastest"]["added_vs_usual"]
        of_fastest = f" ({fastest:.1f} x by the fastest starts)" if fastest else ""
        notes.append(
            f"the usual handler adds {ratios['added_vs_usual']:.1f} x what litelambda adds to hello world{of_fastest}"
        )
    show_table(headings, rows, result, [*titles, *notes])
