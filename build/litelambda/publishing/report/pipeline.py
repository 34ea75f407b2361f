"""What compression and int8 cost: sizes and figures along the pipeline, latency, training, layers and the search."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litelambda.publishing.report.charts import curves, pareto, svg
from litelambda.publishing.report.figures import STAGES, confidence_interval, overfitting, percent, show_figure
from litelambda.publishing.report.page import bar, details, escape, paragraph, table

_INTERVAL = "95 % interval"


def pipeline(report: Mapping[str, Any]) -> str:
    """A line for each model of the pipeline: its bytes and its figures on the test rows."""
    metrics, sizes = report["metrics"], report["size_bytes"]
    names, columns = _names(report), [*metrics["quantized"]]
    if "accuracy" in columns:
        columns.insert(columns.index("accuracy") + 1, _INTERVAL)
    errors = {name: each["ece"] for name, each in report.get("analysis", {}).get("calibration", {}).items()}
    head = [*columns, "calibration error"] if errors else columns
    rows: list[tuple[object, ...]] = [
        (
            names[stage],
            *_size(sizes, stage),
            *_cells(columns, metrics[stage], metrics["num_examples"]),
            percent(errors.get(stage)),
        )
        for stage in STAGES
        if metrics.get(stage)
    ]
    if sizes.get("stored", sizes["quantized"]) != sizes["quantized"]:
        rows.append((names["stored"], *_size(sizes, "stored"), *[""] * len(head)))
    if metrics.get("trivial"):
        rows.append(("a constant answer", "", "", "", *_cells(columns, metrics["trivial"]), ""))
    caption = f"On {metrics['num_examples']:,} test rows"
    rows = [row[: 4 + len(head)] for row in rows]
    return table(("model", "bytes", "of float", "", *head), rows, caption) + _agreement(metrics)


def _names(report: Mapping[str, Any]) -> dict[str, str]:
    steps = ", ".join(name.replace("_", " ") for name in report["compress"] if name != "auto")
    return {
        "float": "float32, as trained",
        "compressed": f"float32, after {steps or 'compression'}",
        "quantized": f"{report.get('quantization', {}).get('scheme', 'quantized')} artifact",
        "stored": f"the artifact as stored ({report.get('stored', {}).get('encoding') or 'as it is'})",
    }


def _cells(columns: Sequence[str], figures: Mapping[str, float], rows: int = 0) -> list[str]:
    """A model's figures by column; the interval where they are of that many rows."""
    cells = []
    for column in columns:
        if column == _INTERVAL:
            cells.append(" to ".join(map(percent, confidence_interval(figures["accuracy"], rows))) if rows else "")
        else:
            cells.append(show_figure(column, figures[column]) if column in figures else "")
    return cells


def _size(sizes: Mapping[str, int], name: str) -> tuple[object, object, object]:
    if name not in sizes:
        return "", "", ""
    share = sizes[name] / sizes["float"]
    return f"{sizes[name]:,}", percent(share), bar(share / max(1.0, max(sizes.values()) / sizes["float"]))


def _agreement(metrics: Mapping[str, Any]) -> str:
    parts = []
    if (share := metrics.get("agreement")) is not None:
        parts.append(f"The artifact answers {percent(share, 2)} of the test rows as the float model does")
    if (share := metrics.get("relative_difference")) is not None:
        parts.append(f"99 of 100 answers are within {percent(share, 2)} of the range of the float model's outputs")
    return paragraph("; ".join(parts) + "." if parts else "")


def latency(report: Mapping[str, Any]) -> str:
    """How long the shipped runtime takes for a row."""
    found = report.get("latency_us", {})
    scheme = report.get("quantization", {}).get("scheme", "quantized")
    names = {"float": "float32", "quantized": f"{scheme} artifact"}
    rows = [(names.get(name, name), f"{value:,.1f} µs") for name, value in found.items()]
    machine = report.get("machine", {}).get("processor", "")
    return table(
        ("model", "CPU time"),
        rows,
        "One row on one thread of the runtime that ships, without HTTP: the fastest tenth of its runs"
        + (f", on {machine}" if machine else ""),
    )


def training(report: Mapping[str, Any]) -> str:
    """The curves of training, and what was applied against over-fitting."""
    history = report["train"]["history"]
    if not history:
        return ""
    train, model = report["recipe"]["train"], report["recipe"]["model"]
    measures = {
        "dropout": model.get("dropout"),
        "l1": model.get("l1"),
        "l2": model.get("l2"),
        "early stopping": train.get("early_stopping") and "yes",
        "augmentation": train.get("augmentation") and "yes",
    }
    applied = ", ".join(f"{name} {value}" for name, value in measures.items() if value) or "nothing"
    drawn = "".join(svg(figure, f"{name} by epoch") for name, figure in curves(history).items())
    return f'<div class="pair">{drawn}</div>' + paragraph(f"{overfitting(history)} Applied against it: {applied}.")


def layers(found: Sequence[Mapping[str, Any]]) -> str:
    """Each layer after compression, and the steps that skipped it; without columns that are empty for all layers."""
    columns = ("type", "shape", "bits", "grid", "codes", "zeros", "rank", "units")
    with_kernel = [layer for layer in found if "shape" in layer]
    shown = [column for column in columns if any(column in layer for layer in with_kernel)]
    rows = [(layer["layer"], *(_cell(column, layer.get(column)) for column in shown)) for layer in with_kernel]
    spared = "".join(
        f"<li>{escape(layer['layer'])}, by {escape(_reasons(layer['left_out']))}</li>"
        for layer in found
        if layer["left_out"]
    )
    note = f"<p>Left alone:</p><ul>{spared}</ul>" if spared else ""
    return table(("layer", *shown), rows) + note if rows else ""


def _reasons(by_step: Mapping[str, str]) -> str:
    """The steps that skipped a layer, grouped by their reason."""
    steps: dict[str, list[str]] = {}
    for step, reason in by_step.items():
        steps.setdefault(reason, []).append(step.replace("_", " "))
    return "; by ".join(f"{', '.join(names)}: {reason}" for reason, names in steps.items())


def search(auto: Mapping[str, Any] | None) -> str:
    """What the search tried, and what it chose."""
    if not auto:
        return ""
    rows = [
        (
            each["name"],
            each["problem"] or f"{each['accuracy']:.4f}",
            f"{each['stored']:,}",
            f"{each['raw']:,}",
            f"{each['latency']:.1f}",
            "chosen" if each["name"] == auto["chosen"] else "Pareto" if each["name"] in auto["pareto"] else "",
        )
        for each in auto["tried"]
    ]
    drawn = svg(pareto(auto), "Accuracy of every candidate by its stored bytes")
    head = ("candidate", "accuracy on validation rows", "bytes stored", "bytes raw", "µs", "")
    return drawn + details(f"All {len(rows)} candidates", table(head, rows))


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "zeros":
        return f"{value:.1%}"
    if isinstance(value, list | tuple):
        return ("\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}" if column == "units" else "x").join(map(str, value))
    return str(value)
