"""The table of `litelambda bench conversion`, in Markdown. Knows results, not how they came about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litelambda.conversion.remedies import FLOAT_ADVICE
from litelambda.conversion.unroll import MAX_STEPS

_HEADINGS = (
    "model", "int8", "stayed float", "kB float → int8", "difference", "µs float → int8", "speed-up", "many rows at once"
)  # fmt: skip
_INTRODUCTION = """# What converts to int8

Made by `{command}`; do not edit. {versions}.

Each model has random weights and goes through the stages of `litelambda build` and `litelambda import`: quantized to
int8 with float32 edges, verified in the runtime that ships, in a process of its own. Recurrent layers are unrolled by
these stages where a sequence has a fixed length of at most {max_steps} steps. Trained weights change the accuracy, not
what converts.

- **int8**: *yes*; *partly*, where operators stayed float; *no*, with the scheme that works, and the reason below.
- **stayed float**: operators that compute in float32, and how many; what to change is [at the end](#what-to-change).
- **difference**: the largest between the float and the int8 model on random rows, as a share of the output's range.
- **µs**: one row in the shipped runtime, one thread, in CPU time, the 10th percentile of many runs
  ({cpu}, {dot_products}). int8 is not always faster: measure your own model.
- **many rows at once**: whether rows in a batch gave, bit for bit, what they give one by one; else they run one by one.
"""


def markdown(result: Mapping[str, Any]) -> str:
    """The whole document.

    Args:
        result: what `litelambda bench conversion --json` prints.
    """
    tools = ", ".join(f"{name} {version}" for name, version in result["tools"].items())
    python, found = result["machine"]["python"], result["machine"]["int8_instructions"]
    parts = [
        _INTRODUCTION.format(
            command="litelambda bench conversion --markdown build/CONVERSION.md",
            versions=f"{tools}, Python {python}",
            max_steps=MAX_STEPS,
            cpu=result["machine"]["cpu"],
            dot_products=f"with {', '.join(found)}"
            if found
            else "which has no dot product of bytes (VNNI), as most have",
        )
    ]
    families: dict[str, dict[str, Any]] = {}
    for name, row in result["cases"].items():
        families.setdefault(row["family"], {})[name] = row
    parts += [_family(title, rows) for title, rows in families.items()]
    return "\n".join([*parts, _advice(result["cases"]), ""])


def _advice(rows: Mapping[str, Any]) -> str:
    """What to change for each operator that stayed float, and which models it is for."""
    owners: dict[str, list[str]] = {}
    for name, row in rows.items():
        for operator in row.get("float_ops", {}):
            owners.setdefault(operator, []).append(name)
    lines = [
        _line([operator, ", ".join(names), FLOAT_ADVICE.get(operator, "")])
        for operator, names in sorted(owners.items())
    ]
    return "\n".join(
        ["## What to change", "", _line(["stayed float", "in", "what to change"]), "| --- | --- | --- |", *lines]
    )


def _family(title: str, rows: Mapping[str, Any]) -> str:
    lines = [f"## {title[0].upper()}{title[1:]}" if title.islower() else f"## {title}", ""]
    lines += table(rows)
    failures = [(name, row) for name, row in rows.items() if "error" in row]
    if failures:
        lines += ["", *(f"- **{name}**: {row['error']}" for name, row in failures)]
    reasons = [(name, row) for name, row in rows.items() if "error" not in row and not row["batching"]["dynamic"]]
    lines += [""] if reasons and not failures else []
    lines += [f"- **{name}**, one row at a time: {row['batching']['reason']}" for name, row in reasons]
    return "\n".join([*lines, ""])


def table(rows: Mapping[str, Any]) -> list[str]:
    """The lines of one table."""
    return [
        _line(_HEADINGS),
        _line(["---", "---", "---", *["---:"] * 4, "---"]),
        *(_line(_cells(name, row)) for name, row in rows.items()),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        instead = f"no; {row['instead']} does" if row.get("instead") else "no"
        return [name, instead, "", "", "", "", "", ""]
    size, latency, operators = row["size_bytes"], row["latency_us"], row["float_ops"]
    return [
        name,
        "partly" if operators else "yes",
        ", ".join(f"{count} {operator}" for operator, count in operators.items()),
        f"{_short(size['float'] / 1000)} → {_short(size['int8'] / 1000)}",
        f"{row['difference']['of_range']:.1%}",
        f"{_short(latency['float'])} → {_short(latency['int8'])}" if latency else "not measured",
        f"{latency['float'] / latency['int8']:.1f}" if latency else "",
        "yes" if row["batching"]["dynamic"] else "no",
    ]


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
