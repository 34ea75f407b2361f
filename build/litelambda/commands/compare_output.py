"""A comparison of two versions as text, as JSON and as a page."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from litelambda.common.wording import columns
from litelambda.publishing.report.figures import percent, show_figure
from litelambda.publishing.report.page import cards, document, escape, fact, paragraph, section, table

if TYPE_CHECKING:
    from litelambda.commands.compare import Comparison, Side
    from litelambda.evaluation.version_comparison import Flip

_SIGNIFICANT = 0.05
_MOST_IN_TEXT = 20
_MOST_IN_PAGE = 500


def to_json(comparison: Comparison) -> dict[str, Any]:
    """What `--json` prints: everything, with every row that is answered differently."""
    found = asdict(comparison.found)
    found["differences"] = [{"row": row, "difference": each} for row, each in comparison.found.differences]
    return {
        "rows_of": comparison.rows,
        "versions": [asdict(side) for side in comparison.sides],
        **found,
        "p_value": comparison.found.p_value,
    }


def describe(comparison: Comparison) -> str:
    """What a person reads in a terminal."""
    head = ("", *(_name(comparison, place) for place in (0, 1)), "")
    lines = [_summary(comparison), "", columns([head, *_figures(comparison)])]
    found = comparison.found
    if found.flips:
        shown = [("ROW", "FIRST", "SECOND", "TARGET"), *map(_flip, found.flips[:_MOST_IN_TEXT])]
        lines += ["", "answered differently:", columns(shown)]
        if (more := len(found.flips) - _MOST_IN_TEXT) > 0:
            lines.append(f"and {more:,} more: see --json or --html")
    if found.differences:
        lines += ["", "largest differences:", columns([(str(row), f"{each:.4g}") for row, each in found.differences])]
    return "\n".join(lines)


def make_page(comparison: Comparison) -> bytes:
    """The same as a page that loads nothing."""
    names = [_name(comparison, place) for place in (0, 1)]
    found = comparison.found
    facts = [fact("rows", f"{found.rows:,}", comparison.rows)]
    if found.agreement is not None:
        facts.append(fact("answered the same", percent(found.agreement, 2), f"{len(found.flips):,} differently"))
    facts.append(fact("stored", f"{_change(comparison, 'stored_bytes')}", "of the first version's bytes"))
    flips = [_flip(each) for each in found.flips[:_MOST_IN_PAGE]]
    more = len(found.flips) - len(flips)
    title = f"{names[0]} and {names[1]}"
    body = (
        f"<h1>{escape(title)}</h1>{paragraph(_summary(comparison))}{cards(facts)}"
        + section("Side by side", table(("", *names, "change"), _figures(comparison)))
        + section(
            "Answered differently",
            table(("row", *names, "target"), flips, aligned="words"),
            paragraph(f"and {more:,} more rows" if more else ""),
        )
        + section(
            "Largest differences",
            table(("row", "difference"), [(str(row), f"{each:.4g}") for row, each in found.differences]),
        )
    )
    return document(f"{title}: comparison", body)


def _summary(comparison: Comparison) -> str:
    found = comparison.found
    rows = f"{found.rows:,} of {comparison.rows}"
    if found.agreement is None:
        return f"Both answer {rows}, with numbers."
    if not found.flips:
        return f"Both answer {rows}, all of them the same."
    said = f"Both answer {rows}, {percent(found.agreement, 2)} of them the same and {len(found.flips):,} differently"
    if found.only_right is None or found.p_value is None:
        return f"{said}."
    first, second = found.only_right
    chance = "more than chance" if found.p_value < _SIGNIFICANT else "may be chance"
    return (
        f"{said}. Of these the first version alone is right on {first:,}, the second alone on {second:,} "
        f"(p = {found.p_value:.3g}: {chance})."
    )


def _figures(comparison: Comparison) -> list[tuple[str, str, str, str]]:
    """Lines of the figures of both versions, and how they change."""
    first, second = comparison.sides
    rows = [(name, first_text, second_text, "") for name, first_text, second_text in _identities(first, second)]
    for name in comparison.found.metrics[0] if comparison.found.metrics else ():
        before, after = (each[name] for each in comparison.found.metrics)
        change = f"{100 * (after - before):+.2f} points" if name == "accuracy" else _relative(before, after)
        rows.append((name, show_figure(name, before), show_figure(name, after), change))
    for percentile in ("median", "p90"):
        before, after = first.latency_us[percentile], second.latency_us[percentile]
        name = f"a row takes, {percentile}"
        rows.append((name, f"{before:,.1f} µs", f"{after:,.1f} µs", _relative(before, after)))
    for name in ("artifact_bytes", "stored_bytes"):
        before, after = getattr(first, name), getattr(second, name)
        rows.append((name.replace("_", " "), f"{before:,}", f"{after:,}", _relative(before, after)))
    if first.refused or second.refused:
        rows.append(("rows without an answer", f"{first.refused:,}", f"{second.refused:,}", ""))
    return rows


def _identities(first: Side, second: Side) -> list[tuple[str, str, str]]:
    return [
        ("published", first.created, second.created),
        ("aliases", ", ".join(first.aliases) or "none", ", ".join(second.aliases) or "none"),
        ("manifest", first.digest[:12], second.digest[:12]),
    ]


def _name(comparison: Comparison, place: int) -> str:
    side, other = comparison.sides[place], comparison.sides[1 - place]
    name = f"{side.model}:{side.version}"
    return f"{side.store}/{side.model}/{side.version}" if side.store != other.store else name


def _flip(flip: Flip) -> tuple[str, str, str, str]:
    return str(flip.row), _answer(flip.first), _answer(flip.second), _answer(flip.true)


def _answer(answer: Any) -> str:
    if answer is None:
        return ""
    return (", ".join(map(str, answer)) or "none") if isinstance(answer, list) else str(answer)


def _change(comparison: Comparison, name: str) -> str:
    first, second = comparison.sides
    return percent(getattr(second, name) / getattr(first, name))


def _relative(before: float, after: float) -> str:
    return f"{100 * (after / before - 1):+.1f} %" if before else ""
