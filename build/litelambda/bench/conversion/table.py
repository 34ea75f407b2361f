"""The table of `litelambda bench conversion`, in Markdown. Knows results, not how they were made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from litelambda.bench.conversion.cases import ARCHITECTURES, all_cases
from litelambda.conversion.recurrent_layers import MAX_STEPS
from litelambda.conversion.remedies import FLOAT_ADVICE
from litelambda.evaluation.comparison import TOLERANCE

_HEADINGS = (
    "model", "int8", "float difference", "int8 difference", "stayed float", "kB float → int8", "µs float → int8",
    "speed-up", "batches",
)  # fmt: skip
_ALIGNMENT = ("---", "---", "---:", "---:", "---", "---:", "---:", "---:", "---")
_INTRODUCTION = """# What converts to int8

Made by `{command}`; do not edit. {versions}.

Each model has random weights and goes through the stages of `litelambda build` and `litelambda import`: it is quantized
to int8 with float32 inputs and outputs, compared with Keras, and verified in the runtime that ships. Recurrent layers
are unrolled if their sequence has a static length of at most {max_steps} steps. Trained weights change the differences,
most of all those of deep networks, but not what converts.{image_size}

- **int8**: *yes*; *partly* if some operators stayed float; *no*, with a scheme that works if there is one. The reason
  is below the table.
- **float difference**: the largest difference between the float flatbuffer, from which the int8 one is made, and Keras'
  own `predict` in another process, as a share of the output's range. The rows are random ones, zeros, ones, the ends of
  what the input allows, padded and masked sequences. More than {tolerance:.2%} is an error, unless the same model in
  float64 shows that its float32 answers are themselves that far off.
- **int8 difference**: the same for the int8 model, on random rows that were not used for calibration.
- **stayed float**: operators that compute in float32, and how many; [the last table](#what-to-change) says what to
  change.
- **µs**: CPU time of one row in the runtime that ships, on one thread: the 10th percentile of many runs
  ({cpu}, {dot_products}). int8 is not always faster: measure your own model.
- **batches**: *yes* if rows in a batch get, bit for bit, the answers that they get one by one. If not, rows are run one
  by one.
"""


def show(result: Mapping[str, Any]) -> None:
    """Print the document."""
    print(markdown(result))


def markdown(result: Mapping[str, Any]) -> str:
    """The whole document.

    Args:
        result: what `litelambda bench conversion --json` prints.
    """
    settings, machine = result["settings"], result["machine"]
    tools = ", ".join(f"{name} {version}" for name, version in settings["tools"].items())
    found, size = machine["int8_instructions"], settings["image_size"]
    parts = [
        _INTRODUCTION.format(
            command=result["command"],
            versions=f"{tools}, Python {machine['python']}",
            max_steps=MAX_STEPS,
            image_size=f" Images have at most {size} x {size} pixels." if size else "",
            tolerance=TOLERANCE["float32"],
            cpu=machine["cpu"],
            dot_products=f"with {', '.join(found)}"
            if found
            else "which lacks the dot product of bytes (VNNI) that most processors have",
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
    lines = [f"## {title}" if title == ARCHITECTURES else f"## {title.capitalize()}", ""]
    failures = [(name, row) for name, row in rows.items() if "error" in row]
    lines += [f"{len(rows) - len(failures)} of {len(rows)} convert.{_not_run(title, rows)}", "", *table(rows)]
    if failures:
        lines += ["", *(f"- **{name}**: {row['error']}" for name, row in failures)]
    reasons = [(name, row) for name, row in rows.items() if "error" not in row and not row["batching"]["dynamic"]]
    lines += [""] if reasons and not failures else []
    lines += [f"- **{name}**, rows one by one: {row['batching']['reason']}" for name, row in reasons]
    return "\n".join([*lines, ""])


def _not_run(family: str, rows: Mapping[str, Any]) -> str:
    """The models of a family that a run left out."""
    missing = [name for name, case in all_cases().items() if case.family == family and name not in rows]
    return f" Not run: {', '.join(missing)}." if missing else ""


def table(rows: Mapping[str, Any]) -> list[str]:
    """The lines of one table."""
    return [
        _line(_HEADINGS),
        _line(_ALIGNMENT),
        *(_line(_cells(name, row)) for name, row in rows.items()),
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _cells(name: str, row: Mapping[str, Any]) -> list[str]:
    if "error" in row:
        instead = f"no; {row['instead']} does" if row.get("instead") else "no"
        return [name, instead, *[""] * (len(_HEADINGS) - 2)]
    size, latency, operators = row["size_bytes"], row["latency_us"], row["float_ops"]
    return [
        name,
        "partly" if operators else "yes",
        _percent(row["difference"]["float"]),
        _percent(row["difference"]["int8"]),
        ", ".join(f"{count} {operator}" for operator, count in operators.items()),
        f"{_short(size['float'] / 1000)} → {_short(size['int8'] / 1000)}",
        f"{_short(latency['float'])} → {_short(latency['int8'])}" if latency else "not measured",
        f"{latency['float'] / latency['int8']:.1f}" if latency else "",
        "yes" if row["batching"]["dynamic"] else "no",
    ]


def _percent(share: float) -> str:
    """Two significant digits, never as 3e-05."""
    return f"{np.format_float_positional(100 * share, precision=2, fractional=False, trim='-')}%"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
