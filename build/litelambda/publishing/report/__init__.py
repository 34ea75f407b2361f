"""Report: a build's measurements as one self-contained HTML page, made from the version's report.json alone.

What it is for comes first: is this model good enough, where does it fail, can its scores be believed, what did
compression cost. How it was made follows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from litelambda.publishing.report.failures import failures
from litelambda.publishing.report.figures import confidence_interval, main_figure, percent, show_figure
from litelambda.publishing.report.page import (
    Safe,
    cards,
    details,
    document,
    escape,
    fact,
    remarks,
    section,
    table,
)
from litelambda.publishing.report.pipeline import latency, layers, pipeline, search, training
from litelambda.publishing.report.trust import explanations, trust
from litelambda.publishing.report.verdict import judge
from litelambda.store.open_report import CHECKED

HTML_NAME = "report.html"

__all__ = ["HTML_NAME", "make_html"]


def make_html(report: Mapping[str, Any]) -> bytes:
    """Write the page.

    Args:
        report: what report.json holds.
    """
    name = report["recipe"]["publish"]["name"]
    version = f" version {report['version']}" if "version" in report else ""
    body = (
        f'<h1>{escape(name)}{version}</h1><p class="muted">{escape(_subtitle(report))}</p>{CHECKED}'
        + _verdict(report)
        + section("Where it fails", failures(report))
        + section("Whether its scores can be believed", trust(report))
        + section("Whether its explanations can be believed", explanations(report))
        + section("What compression and quantization cost", pipeline(report))
        + section("Latency", latency(report))
        + section("Training", training(report))
        + section("Search", search(report["compress"].get("auto")))
        + section("Layers", layers(report.get("layers", [])))
        + section("Where it comes from", _origin(report))
    )
    return document(f"{name}{version}: report", body)


def _subtitle(report: Mapping[str, Any]) -> str:
    task = report["recipe"].get("data", {}).get("task", "").replace("_", "-")
    created = report.get("created", "")
    return ", ".join(filter(None, [task, f"built {created}" if created else ""]))


def _verdict(report: Mapping[str, Any]) -> str:
    kind, sentence, found = judge(report)
    metrics, sizes = report["metrics"], report["size_bytes"]
    name, rows = main_figure(metrics), metrics["num_examples"]
    value = metrics["quantized"][name]
    note = f"{rows:,} test rows"
    if name != "mse":
        note = f"{' to '.join(percent(end) for end in confidence_interval(value, rows))}, {note}"
    stored = sizes.get("stored", sizes["quantized"])
    facts = [fact(name, show_figure(name, value), note)]
    if constant := metrics.get("trivial", {}).get(name):
        facts.append(fact("a constant answer", show_figure(name, constant), "the figure to beat"))
    facts.append(fact("stored", f"{stored:,} bytes", f"{percent(stored / sizes['float'])} of the float model"))
    if time := report.get("latency_us", {}).get("quantized"):
        facts.append(fact("a row takes", f"{time:,.1f} µs", "in the runtime, one thread"))
    return (
        f'<section class="verdict {kind}" aria-label="verdict"><p><strong>{escape(sentence)}</strong></p>'
        f"{remarks(found)}</section>{cards(facts)}"
    )


def _origin(report: Mapping[str, Any]) -> str:
    rows: list[tuple[str, object]] = []
    if "version" in report:
        rows += [("version", str(report["version"])), ("built", report["created"])]
    if "artifact_sha256" in report:
        rows.append(("artifact, SHA-256", _code(report["artifact_sha256"])))
    data = report.get("data", {})
    for each in data.get("files", []):
        rows.append((f"data: {each['file']}, SHA-256", Safe(f"{_code(each['sha256'])} ({each['size_bytes']:,} bytes)")))
    if "rows" in data:
        rows.append(("rows", ", ".join(f"{count:,} {split}" for split, count in data["rows"].items())))
    rows += [(tool.replace("_", "-"), number) for tool, number in report.get("tools", {}).items()]
    seconds = [(stage, f"{taken:.1f} s") for stage, taken in report["seconds"].items()]
    recipe = f"<pre>{escape(json.dumps(report['recipe'], indent=1, ensure_ascii=False))}</pre>"
    return (
        table(("what", "which"), rows, aligned="words")
        + table(("stage", "time"), seconds, "How long each stage of the build took")
        + details("The recipe, with its defaults", recipe)
    )


def _code(text: str) -> Safe:
    return Safe(f"<code>{escape(text)}</code>")
