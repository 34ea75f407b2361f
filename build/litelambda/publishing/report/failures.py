"""Where a model fails: by class, by what is taken for what, by range of values, and the rows answered worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litelambda.publishing.report.charts import residuals, svg
from litelambda.publishing.report.examples import examples
from litelambda.publishing.report.figures import percent
from litelambda.publishing.report.page import details, paragraph, shaded, table

_FULL_MATRIX = 20  # classes
_MOST_PAIRS = 10
_MOST_CLASSES = 30


def failures(report: Mapping[str, Any]) -> str:
    """By class or by range, then the worst rows."""
    found = report.get("analysis", {})
    labels = report.get("labels")
    parts = [
        _classes(found.get("classes"), labels),
        _confusion(report.get("confusion"), labels),
        "".join(_regression(number, each, len(found["regression"])) for number, each in enumerate(found["regression"]))
        if "regression" in found
        else "",
        _ranks(found.get("ranks", [])),
        examples(report),
    ]
    return "".join(parts)


def _classes(classes: Sequence[Mapping[str, Any]] | None, labels: Sequence[str] | None) -> str:
    if not classes or labels is None:
        return ""
    head = ("class", "test rows", "answers", "precision", "recall", "F1")
    order = sorted(range(len(classes)), key=lambda at: (classes[at]["f1"] if classes[at]["f1"] is not None else 2, at))
    rows = [
        (
            labels[at],
            f"{classes[at]['support']:,}",
            f"{classes[at]['predicted']:,}",
            *(percent(classes[at][name]) or "-" for name in ("precision", "recall", "f1")),
        )
        for at in order
    ]
    caption = "The weakest class first. Precision: of the answers with this class; recall: of the rows of this class."
    rest = table(head, rows[_MOST_CLASSES:])
    return table(head, rows[:_MOST_CLASSES], caption) + details(f"{len(rows) - _MOST_CLASSES:,} more classes", rest)


def _confusion(matrix: Sequence[Sequence[int]] | None, labels: Sequence[str] | None) -> str:
    if not matrix or labels is None:
        return ""
    pairs = sorted(
        ((count, true, found) for true, row in enumerate(matrix) for found, count in enumerate(row) if true != found),
        key=lambda pair: -pair[0],
    )
    rows = [(labels[true], labels[found], f"{count:,}") for count, true, found in pairs[:_MOST_PAIRS] if count]
    taken = table(("class", "taken for", "test rows"), rows, "What is most often taken for what", "words2")
    if len(labels) > _FULL_MATRIX:
        return f"<h3>Confusion</h3>{taken or paragraph('No test row is taken for another class.')}"
    lines = [
        (labels[true], *(shaded(f"{count:,}", count / max(sum(row), 1)) for count in row))
        for true, row in enumerate(matrix)
    ]
    head = ("class ↓, answer →", *labels)
    return f"<h3>Confusion</h3>{table(head, lines, 'Test rows by their class (lines) and the answer (columns)')}{taken}"


def _regression(number: int, found: Mapping[str, Any], count: int) -> str:
    title = f"<h3>Output {number + 1}</h3>" if count > 1 else ""
    quantiles = found["quantiles"]
    text = (
        f"Half of the rows are answered within {quantiles['0.5']:.4g} of their target, 90 % within "
        f"{quantiles['0.9']:.4g}, 99 % within {quantiles['0.99']:.4g}; on average {found['bias']:+.4g}."
    )
    if found["r2"] is not None:
        text += f" R² is {found['r2']:.4f}."
    rows = [
        (
            f"{each['from']:.5g} to {each['to']:.5g}",
            f"{each['count']:,}",
            f"{each['mae']:.4g}",
            f"{each['bias']:+.4g}",
        )
        for each in found["ranges"]
    ]
    by_range = table(("target", "test rows", "mean absolute error", "mean error"), rows, "Error by range of the target")
    drawn = svg(residuals(found["points"]), "Answer minus target, by target", f"{len(found['points'])} test rows")
    return title + paragraph(text) + by_range + drawn


def _ranks(ranks: Sequence[Mapping[str, Any]]) -> str:
    rows = [(f"first {each['rank']}", percent(each["recall"])) for each in ranks]
    return table(("of the answer's items", "the chosen one is among them"), rows, "Recall by rank, on the test rows")
