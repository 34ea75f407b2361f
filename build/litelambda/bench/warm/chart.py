"""The chart of `litelambda bench warm`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litelambda.bench.charts import (
    FAINT_COLOR,
    FLOOR_COLOR,
    OUR_COLOR,
    THEIR_COLOR,
    add_title,
    figure,
    label_rows,
    name_machine,
)
from litelambda.bench.contenders import USUAL


def draw(result: dict[str, Any], path: Path) -> None:
    """Draw what each case takes in the bare runtime, in ours and in the usual handler, on a logarithmic axis."""
    cases = result["cases"]
    with figure(path, len(cases)) as axes:
        for place, case in enumerate(cases.values()):
            times = [max(case[key], 1.0) for key in ("raw_us", "lean_us", "p50_us", "usual_us")]
            axes.plot([min(times), max(times)], [place, place], color=FAINT_COLOR, linewidth=2, zorder=1)
        series = (
            ("raw_us", "the bare run", "|", FLOOR_COLOR),
            ("lean_us", "litelambda, lean bootstrap", "o", OUR_COLOR),
            ("p50_us", "litelambda, stock client", "D", "#66a5ad"),
            ("usual_us", f"{USUAL}: boto3, numpy, Powertools", "s", THEIR_COLOR),
        )
        for key, label, marker, color in series:
            values = [max(case[key], 1.0) for case in cases.values()]
            axes.scatter(values, range(len(cases)), label=label, marker=marker, color=color, s=48, zorder=2)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda us, _place: f"{us:,.0f} µs" if us < 1000 else f"{us / 1000:,.0f} ms")
        label_rows(axes, [name.replace("_", " ") for name in cases])
        axes.set_xlabel("on top of hello world's round trip, median")
        axes.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2, frameon=False)
        add_title(axes, "Warm predictions", f"{result['invokes']:,} invokes each · {name_machine(result)}")
