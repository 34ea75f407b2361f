"""Whether a model's scores and explanations can be believed, and where to set a threshold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litelambda.publishing.report import charts
from litelambda.publishing.report.charts import calibration_curve, svg
from litelambda.publishing.report.figures import percent
from litelambda.publishing.report.page import paragraph, table

_CHOSEN_HERE = (
    "Thresholds were chosen on the same test rows that their figures are of: expect a little less on new data. Send "
    "one with a request as its parameter threshold."
)


def trust(report: Mapping[str, Any]) -> str:
    """The calibration curve, then thresholds; "" of a model without probabilities."""
    found = report.get("analysis", {})
    if "calibration" not in found:
        return ""
    labels: Sequence[str] = report["labels"]
    errors = ", ".join(f"{100 * each['ece']:.1f} points ({name})" for name, each in found["calibration"].items())
    text = (
        f"Expected calibration error: {errors}. On the dashed line, answers with a confidence of 80 % are right 8 "
        "times out of 10; below it the model is surer than it should be."
    )
    curve = svg(
        calibration_curve(found["calibration"]), "Share of right answers by confidence", "ten bins of confidence"
    )
    rows = [
        (percent(each["threshold"], 0), percent(each["answered"]), percent(each["right"]))
        for each in found.get("coverage", [])
    ]
    used = table(("confidence at least", "of the rows", "right"), rows, "If only confident answers are used")
    return paragraph(text) + curve + used + _thresholds(found.get("thresholds", []), labels)


def explanations(report: Mapping[str, Any]) -> str:
    """Whether explanations follow the model; "" where none were checked."""
    found = report.get("explanations")
    if not found:
        return ""
    if "left_out" in found:
        return paragraph(f"They were not checked: {found['left_out']}.")
    areas, random, rank = found["areas"], found["random_areas"], found["shuffled_correlation"]
    text = (
        f"The answers to {found['rows']} test rows, while their values become the baseline's (deletion), or the "
        "baseline's become theirs (insertion), those first that integrated gradients call important; dashed, in a "
        "random order. Areas, of which the first is better small and the second large: "
        f"{areas['deletion']:.3f} and {areas['insertion']:.3f}, at random {random['deletion']:.3f} and "
        f"{random['insertion']:.3f}."
    )
    shuffled = (
        f"Explanations of a copy with shuffled weights correlate with these by {rank:.2f} (ranks): the nearer to 0, "
        "the more they say about this model, and not about its architecture or the rows."
    )
    curve = charts.deletion_and_insertion(found["shares"], found["curves"], found["random_curves"])
    return paragraph(text) + svg(curve, "The answer while values go and come") + paragraph(shuffled)


def _thresholds(found: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    rows: list[tuple[str, ...]] = []
    for each in found:
        if "best_f1" not in each:
            continue
        name = labels[each["label"]]
        rows.append((name, "at 0.5", *_point(each["default"])))
        rows.append((name, "best F1", *_point(each["best_f1"])))
        rows += [
            (name, f"recall of {percent(point['at_least'], 0)} or more", *_point(point)) for point in each["at_recall"]
        ]
    head = ("class", "to get", "threshold", "precision", "recall", "F1")
    shown = table(head, rows, "Where to set the threshold of a class's score", "words2")
    return shown and f"<h3>Thresholds</h3>{shown}{paragraph(_CHOSEN_HERE)}"


def _point(point: Mapping[str, float]) -> tuple[str, str, str, str]:
    return (
        f"{point['threshold']:.3f}",
        percent(point["precision"]),
        percent(point["recall"]),
        percent(point["f1"]),
    )
