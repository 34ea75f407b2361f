"""A choice of platform as text, as Markdown and as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from litelambda.common.wording import columns
from litelambda.costs.bills import PLATFORMS
from litelambda.costs.choose import QUESTIONS, Answer, Candidate, Choice
from litelambda.costs.limits import Source

_IN_FIRST_TABLE = ("performance", "price")
_RANKS = (
    "Ranked by the 99th percentile with what cold starts add, and by price, 1 first; what was not measured has no "
    "rank, and no question outweighs another."
)


class _Notes:
    """Sources by number, in the order in which they are cited."""

    def __init__(self) -> None:
        self._numbers: dict[Source, int] = {}

    def cite(self, sources: tuple[Source, ...]) -> str:
        numbers = [self._numbers.setdefault(source, len(self._numbers) + 1) for source in sources]
        return "".join(f" [{number}]" for number in numbers)

    def lines(self) -> Iterator[str]:
        for source, number in self._numbers.items():
            yield f"[{number}] {_cited(source)}"


def _cited(source: Source) -> str:
    if source.unverified:
        return f"{source.page}, unverified"
    return f"{source.page}, read {source.read}" if source.read else source.page


def to_json(choice: Choice) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "model": choice.case.profile.model,
        "load": asdict(choice.case.load),
        "memory_mb": choice.case.memory_mb,
        "architecture": choice.case.architecture,
        "platforms": {
            name: {
                "title": PLATFORMS[name].title,
                "excluded": list(candidate.excluded),
                **{question: _answer(answer) for question, answer in candidate.answers.items()},
            }
            for name, candidate in choice.candidates.items()
        },
        "warnings": list(choice.warnings),
    }


def _answer(answer: Answer) -> dict[str, Any]:
    sources = [
        {"page": each.page, "read": each.read.isoformat() if each.read else None, "unverified": each.unverified}
        for each in answer.sources
    ]
    return {"text": answer.text, "rank": answer.rank, "sources": sources}


def _shown(answer: Answer) -> str:
    return f"{answer.rank}. {answer.text}" if answer.rank else answer.text


def describe(choice: Choice) -> str:
    """What a person reads in a terminal: a table of what is ranked, then the rest by platform, and the sources."""
    notes = _Notes()
    case = choice.case
    taking = {name: each for name, each in choice.candidates.items() if not each.excluded}
    rows = [("PLATFORM", *(question.upper() for question in _IN_FIRST_TABLE))]
    rows += [
        (PLATFORMS[name].title, *(_shown(each.answers[question]) for question in _IN_FIRST_TABLE))
        for name, each in taking.items()
    ]
    lines = [
        f"{case.profile.model}, {case.load.requests:,.0f} requests a month; a function of {case.memory_mb} MB",
        "",
        columns(rows),
        "",
        _RANKS,
        "",
    ]
    for name, candidate in taking.items():
        lines += [PLATFORMS[name].title, *_details(candidate, notes)]
    excluded = [
        (PLATFORMS[name].title, "; ".join(each.excluded)) for name, each in choice.candidates.items() if each.excluded
    ]
    lines += ["", "excluded", columns(excluded)] if excluded else []
    lines += ["", "sources", *notes.lines()]
    return "\n".join([*lines, *(["", *(f"- {each}" for each in choice.warnings)] if choice.warnings else [])])


def _details(candidate: Candidate, notes: _Notes) -> Iterator[str]:
    for question in QUESTIONS:
        answer = candidate.answers[question]
        if question not in _IN_FIRST_TABLE:
            yield f"  {question}: {answer.text}{notes.cite(answer.sources)}"
        elif answer.sources:
            yield f"  {question}:{notes.cite(answer.sources)}"


def to_markdown(choice: Choice) -> str:
    """A table with a row for each platform, and its sources under it."""
    notes = _Notes()
    rows = [("platform", *QUESTIONS), ("---",) * (len(QUESTIONS) + 1)]
    for name, candidate in choice.candidates.items():
        if not candidate.excluded:
            cells = (f"{_shown(answer)}{notes.cite(answer.sources)}" for answer in candidate.answers.values())
            rows.append((f"**{PLATFORMS[name].title}**", *cells))
    lines = ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in rows]
    excluded = [
        f"- {PLATFORMS[name].title}: {'; '.join(candidate.excluded)}"
        for name, candidate in choice.candidates.items()
        if candidate.excluded
    ]
    lines += ["", "Excluded:", "", *excluded] if excluded else []
    return "\n".join([*lines, "", *(f"{line}  " for line in notes.lines())])
