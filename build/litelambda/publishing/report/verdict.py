"""The verdict: is this model good enough, said in a line, and the sentences that it rests on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from litelambda.publishing.report.figures import (
    confidence_interval,
    main_figure,
    overfitting,
    percent,
    show_figure,
)

Remark = tuple[str, str]
"""How it is ("good", "warn" or "bad"), and a sentence."""

_FEW_ROWS = 100
_WEAK_RECALL = 0.5
_LARGE_ECE = 0.05
_CONSTANT = {
    "accuracy": "the most frequent class for every row",
    "recall": "the most popular items for everyone",
    "mse": "the mean for every row",
    "multi_label": "the labels that most training rows have",
}


def judge(report: Mapping[str, Any]) -> tuple[str, str, list[Remark]]:
    """How good a version is.

    Returns:
        How good it is ("good", "warn" or "bad"), the verdict in a sentence, and the remarks that it rests on.
    """
    remarks = [
        *_against_constant(report),
        *_losses(report),
        *_weak_classes(report),
        *_trust(report),
        *_training(report),
    ]
    remarks = [*remarks[:1], *sorted(remarks[1:], key=lambda remark: ("bad", "warn", "good").index(remark[0]))]
    kinds = [kind for kind, _ in remarks]
    if "bad" in kinds:
        return "bad", "Not good enough: it is no better than a constant answer.", remarks
    if number := kinds.count("warn"):
        noun = "point needs" if number == 1 else "points need"
        return "warn", f"Good enough by its gate; {number} {noun} a look.", remarks
    return "good", "Good enough: better than a constant answer, and it passed its gate.", remarks


def _against_constant(report: Mapping[str, Any]) -> Iterator[Remark]:
    metrics = report["metrics"]
    name, rows = main_figure(metrics), metrics["num_examples"]
    value, constant = metrics["quantized"][name], metrics.get("trivial", {}).get(name)
    said = f"{name.upper() if name == 'mse' else name.capitalize()} {show_figure(name, value)} on {rows:,} test rows"
    low = value
    if name != "mse":
        low, high = confidence_interval(value, rows)
        said += f" (95 % interval {percent(low)} to {percent(high)})"
    if constant is None:
        yield "good", f"{said}."
        return
    task = report["recipe"].get("data", {}).get("task", "")
    answer = _CONSTANT.get(task, _CONSTANT[name])
    said += f"; answering with {answer} has {show_figure(name, constant)}."
    is_better = value < constant if name == "mse" else value > constant
    if not is_better:
        yield "bad", said
    elif name != "mse" and low <= constant:
        yield "warn", f"{said} The difference may be chance: test on more rows."
    else:
        yield "good", said
    if rows < _FEW_ROWS:
        yield "warn", f"Only {rows} test rows: all figures of this page are rough."


def _losses(report: Mapping[str, Any]) -> Iterator[Remark]:
    metrics, gate = report["metrics"], report["recipe"].get("gate", {})
    name = main_figure(metrics)
    first, last = metrics["float"].get(name), metrics["quantized"][name]
    sizes = report["size_bytes"]
    smaller = sizes["float"] / sizes.get("stored", sizes["quantized"])
    share = f"{smaller:.1f} times smaller" if smaller >= 1 else f"{1 / smaller:.1f} times larger"
    made = " and ".join(["compressed", "quantized"] if metrics.get("compressed") else ["quantized"])
    if name == "mse":
        change, allowed = last / first - 1 if first else 0.0, gate.get("max_mse_increase")
        text = f"{made.capitalize()}, it is stored {share}, and its mse changed by {percent(change)}"
    else:
        change, allowed = first - last, gate.get("max_accuracy_drop")
        points = 0 - round(100 * change, 2)  # not "-0.00"
        text = f"{made.capitalize()}, it is stored {share}, and its {name} changed by {points:+.2f} points"
    if allowed is None:
        yield "good", f"{text}."
        return
    limit = f"{percent(allowed)}" if name == "mse" else f"{100 * allowed:.2f} points"
    yield ("warn" if change > allowed / 2 > 0 else "good"), f"{text}; the gate allows a loss of {limit}."
    for each in report.get("served", []):
        if (theirs := (each.get("metrics") or {}).get(name)) is not None:
            aliases = ", ".join(each["aliases"])
            yield "good", f"Version {each['version']} ({aliases}), which it replaces, has {show_figure(name, theirs)}."


def _weak_classes(report: Mapping[str, Any]) -> Iterator[Remark]:
    classes, labels = report.get("analysis", {}).get("classes"), report.get("labels")
    if not classes or not labels:
        return
    there = [(each["recall"], number) for number, each in enumerate(classes) if each["support"]]
    if not there:
        return
    recall, number = min(there)
    text = f"Weakest class: {labels[number]!r}, of which {percent(recall)} of {classes[number]['support']:,} are found"
    confusion = report.get("confusion")
    if confusion and recall < 1:
        row = [0 if at == number else count for at, count in enumerate(confusion[number])]
        text += f"; most of the others are taken for {labels[row.index(max(row))]!r}"
    yield ("warn" if recall < _WEAK_RECALL else "good"), f"{text}."


def _trust(report: Mapping[str, Any]) -> Iterator[Remark]:
    found = report.get("analysis", {}).get("calibration", {}).get("quantized")
    if found is None:
        return
    text = f"Its confidence is off by {100 * found['ece']:.1f} points on average (expected calibration error)"
    if found["ece"] > _LARGE_ECE:
        yield "warn", f"{text}: do not take its scores for probabilities."
    else:
        yield "good", f"{text}: its scores can be read as probabilities."


def _training(report: Mapping[str, Any]) -> Iterator[Remark]:
    history = report["train"]["history"]
    if "val_accuracy" in history and "accuracy" in history:
        text = overfitting(history)
        yield ("warn" if "over-fitted:" in text else "good"), text
    for hint in report.get("hints", []):
        yield "warn", f"{hint}."
