"""Report: a build's measurements as one self-contained HTML page, made from the version's report.json alone.

Figures are inline SVG; the page loads nothing.
"""

from __future__ import annotations

import html
import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

from litelambda.publishing import charts

HTML_NAME = "report.html"
_GAP = 0.02  # of training accuracy above validation accuracy, beyond which the page says over-fitted
_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222}"
    "table{border-collapse:collapse;margin:1em 0}td,th{padding:.2em .6em;border-bottom:1px solid #ddd;text-align:right}"
    "td:first-child,th:first-child{text-align:left}svg{max-width:100%;height:auto}"
)


def make_html(report: Mapping[str, Any]) -> bytes:
    """Write the page.

    Args:
        report: what report.json holds.
    """
    recipe = report["recipe"]
    parts = [
        _section("Accuracy", _accuracy(report)),
        _section("Size", _sizes(report)),
        _section("Training", _training(report)),
        _section("Layers", _layers(report.get("layers", []))),
        _section("Search", _search(report["compress"].get("auto"))),
        _section("Confusion on the test rows", _confusion(report)),
        _section("Time", _table(("stage", "seconds"), [(k, f"{v:.1f}") for k, v in report["seconds"].items()])),
    ]
    name = html.escape(recipe["publish"]["name"])
    page = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{name}</title><style>{_STYLE}</style>'
        f"<h1>{name}</h1>{''.join(parts)}</html>"
    )
    return page.encode()


def confidence_interval(share: float, count: int) -> tuple[float, float]:
    """The 95 % interval of a share that was observed on `count` rows.

    >>> confidence_interval(0.9, 100)
    (0.8256..., 0.9447...)

    Source: Wilson 1927, "Probable inference".
    """
    z = 1.96
    center = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    return max(0.0, center - half), min(1.0, center + half)


def overfitting(history: Mapping[str, Sequence[float]]) -> str:
    """The gap between training and validation at the end, in a sentence."""
    if "val_accuracy" not in history or "accuracy" not in history:
        return "There were no validation rows to compare with."
    gap = history["accuracy"][-1] - history["val_accuracy"][-1]
    best = min(range(len(history["val_loss"])), key=history["val_loss"].__getitem__) + 1
    verdict = "over-fitted: try dropout, L2, augmentation or early stopping" if gap > _GAP else "no over-fitting to see"
    return (
        f"Training accuracy is {100 * gap:+.2f} points above validation at the end, the validation loss was lowest in "
        f"epoch {best} of {len(history['val_loss'])}: {verdict}."
    )


def _accuracy(report: Mapping[str, Any]) -> str:
    metrics = report["metrics"]
    stages = {name: metrics[name] for name in ("float", "compressed", "quantized") if metrics.get(name)}
    rows = []
    for name, figures in stages.items():
        for metric, value in figures.items():
            low, high = confidence_interval(value, metrics["num_examples"]) if metric == "accuracy" else (None, None)
            rows.append((name, metric, f"{value:.4f}", "" if low is None else f"{low:.4f} to {high:.4f}"))
    table = _table(("model", "figure", "test rows", "95 % interval"), rows)
    if "accuracy" not in metrics["float"]:
        return table
    intervals = {
        name: (each["accuracy"], *confidence_interval(each["accuracy"], metrics["num_examples"]))
        for name, each in stages.items()
    }
    return table + _figure(charts.intervals(intervals))


def _sizes(report: Mapping[str, Any]) -> str:
    sizes = report["size_bytes"]
    rows = [(name, f"{size:,}", f"1/{sizes['float'] / size:.1f}") for name, size in sizes.items()]
    latency = [(f"latency, {name}", f"{value:.1f} µs", "") for name, value in report.get("latency_us", {}).items()]
    return _figure(charts.bars(sizes, "bytes")) + _table(("", "bytes", "of float"), [*rows, *latency])


def _training(report: Mapping[str, Any]) -> str:
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
    text = f"<p>{html.escape(overfitting(history))} Applied against it: {html.escape(applied)}.</p>"
    return _figure(charts.curves(history)) + text


def _layers(layers: Sequence[Mapping[str, Any]]) -> str:
    """Each layer after compression, and the steps that skipped it; without columns that are empty for all layers."""
    columns = ("type", "shape", "bits", "grid", "codes", "zeros", "rank", "units")
    with_kernel = [layer for layer in layers if "shape" in layer]
    shown = [column for column in columns if any(column in layer for layer in with_kernel)]
    rows = [(layer["layer"], *(_cell(column, layer.get(column)) for column in shown)) for layer in with_kernel]
    spared = "".join(
        f"<li>{html.escape(layer['layer'])}, by {html.escape(_reasons(layer['left_out']))}</li>"
        for layer in layers
        if layer["left_out"]
    )
    note = f"<p>Left alone:</p><ul>{spared}</ul>" if spared else ""
    return _table(("layer", *shown), rows) + note if rows else ""


def _reasons(by_step: Mapping[str, str]) -> str:
    """The steps that skipped a layer, grouped by their reason."""
    steps: dict[str, list[str]] = {}
    for step, reason in by_step.items():
        steps.setdefault(reason, []).append(step.replace("_", " "))
    return "; by ".join(f"{', '.join(names)}: {reason}" for reason, names in steps.items())


def _search(auto: Mapping[str, Any] | None) -> str:
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
    return _figure(charts.pareto(auto)) + _table(("candidate", "validation", "stored", "raw", "µs", ""), rows)


def _confusion(report: Mapping[str, Any]) -> str:
    matrix = report.get("confusion")
    return _figure(charts.confusion(matrix, report["labels"])) if matrix else ""


def _cell(column: str, value: Any) -> str:
    if value is None:
        return ""
    if column == "zeros":
        return f"{value:.1%}"
    if isinstance(value, list | tuple):
        return ("\N{NO-BREAK SPACE}→\N{NO-BREAK SPACE}" if column == "units" else "x").join(map(str, value))
    return str(value)


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}" if content else ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    def line(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(f"<{tag}>{html.escape(cell)}</{tag}>" for cell in cells) + "</tr>"

    return f"<table>{line(head, 'th')}{''.join(line(row, 'td') for row in rows)}</table>"


def _figure(figure: Any) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata=dict.fromkeys(("Creator", "Date", "Format", "Type")))
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]
