"""The test rows that a report shows, with why they are answered so: colors over a picture or words, or bars.

Red is for the answer, blue against it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from litelambda.publishing.report.figures import name_of, percent
from litelambda.publishing.report.page import Safe, bar, cards, escape, paragraph, table

_MOST_LINES = 4


def examples(report: Mapping[str, Any]) -> str:
    """The rows that are answered worst, then some that are answered best."""
    worst, best, labels = report.get("examples", []), report.get("typical", []), report.get("labels")
    if not worst:
        return paragraph(report.get("examples_left_out", ""))
    wrong = sum(each["wrong"] for each in worst)
    if labels is None:
        said = "The rows with the largest errors:"
    elif wrong:
        rest = "" if wrong == len(worst) else ", then the least sure right ones"
        said = f"The surest wrong answers first{rest}:"
    else:
        said = "No test row is answered wrongly; the least sure answers:"
    shown = f"<h3>Test rows that are answered worst</h3>{_legend(report)}{paragraph(said)}{_rows(worst, labels)}"
    return shown + (f"<h3>Test rows that are answered best</h3>{_rows(best, labels)}" if best else "")


def _rows(found: Sequence[Mapping[str, Any]], labels: Sequence[str] | None) -> str:
    if "fields" in found[0]["shows"]:
        return _table(found, labels)
    return cards((_card(each, labels) for each in found), wide="text" in found[0]["shows"])


def _table(found: Sequence[Mapping[str, Any]], labels: Sequence[str] | None) -> str:
    sure = ["confidence"] if "confidence" in found[0] else []
    why = ["why"] if any("explanation" in each for each in found) else []
    rows = [
        (
            str(each["row"]),
            name_of(labels, each["true"]),
            name_of(labels, each["answer"]),
            *(percent(each[name]) for name in sure),
            *(_bars(each) for _ in why),
            *each["shows"]["fields"].values(),
        )
        for each in found
    ]
    head = ("row", "target" if labels is None else "class", "answer", *sure, *why, *found[0]["shows"]["fields"])
    return table(head, rows)


def _card(each: Mapping[str, Any], labels: Sequence[str] | None) -> str:
    true, answer = name_of(labels, each["true"]), name_of(labels, each["answer"])
    sure = f" ({percent(each['confidence'])} sure)" if "confidence" in each else ""
    verb = "is" if labels is not None else "target"
    said = f"{verb} <b>{escape(true)}</b>, answer <b>{escape(answer)}</b>{escape(sure)}"
    return f'{_shown(each, true)}<p>{said}<br><span class="muted">test row {each["row"]}</span></p>'


def _shown(each: Mapping[str, Any], true: str) -> str:
    shows, name = each["shows"], f"test row {each['row']}: {true}"
    if "picture" in shows:
        source = escape(shows["picture"])
        return f'<img alt="{escape(name)}" src="data:image/png;base64,{source}">{_over_picture(each, name)}'
    return f"<blockquote>{_over_words(shows['text'], each)}</blockquote>"


def _legend(report: Mapping[str, Any]) -> str:
    """What the colors mean, how the explanations were made, or why there are none."""
    if reason := report.get("explanations_left_out"):
        return paragraph(f"The answers are not explained: {reason}.")
    found = [each["explanation"] for each in report.get("examples", []) if "explanation" in each]
    if not found:
        return ""
    methods = ", ".join(dict.fromkeys(each["method"].replace("_", " ") for each in found))
    baselines = ", ".join(dict.fromkeys(each["baseline"] for each in found))
    errors = max(each["completeness_error"] for each in found)
    return paragraph(
        f"Why it answered so: red speaks for the answer that it gave, blue against it ({methods}, compared with: "
        f"{baselines}; what the sums leave out is at most {100 * errors:.1f} % of the difference)."
    )


def _over_picture(each: Mapping[str, Any], name: str) -> str:
    """The picture with the colors over it; "" where there is none."""
    picture = _drawn(each).get("picture")
    return (picture and f'<img alt="{escape(f"why: {name}")}" src="data:image/png;base64,{escape(picture)}">') or ""


def _over_words(text: str, each: Mapping[str, Any]) -> str:
    """A text whose words have the colors."""
    parts, end = [], 0
    for start, stop, strength in sorted(_drawn(each).get("marks", [])):
        if start < end or stop > len(text):
            continue
        color = "var(--warm)" if strength > 0 else "var(--accent)"
        ground = f"background:color-mix(in srgb,{color} {45 * abs(strength):.0f}%,transparent)"
        parts.append(f'{escape(text[end:start])}<mark style="{ground}">{escape(text[start:stop])}</mark>')
        end = stop
    return f"{''.join(parts)}{escape(text[end:])}"


def _bars(each: Mapping[str, Any]) -> Safe:
    """A line for each of the strongest features."""
    found: Sequence[Sequence[Any]] = _drawn(each).get("bars", [])[:_MOST_LINES]
    most = max((abs(value) for _name, value in found), default=0.0) or 1.0
    lines = "".join(
        f'<span>{escape(name)}</span><span class="{"for" if value > 0 else "against"}">{bar(abs(value) / most)}</span>'
        f"<span>{value:+.2g}</span>"
        for name, value in found
    )
    return Safe(f'<span class="why">{lines}</span>')


def _drawn(each: Mapping[str, Any]) -> Mapping[str, Any]:
    found: Mapping[str, Any] = each.get("explanation", {}).get("drawn", {})
    return found
