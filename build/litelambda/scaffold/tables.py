"""Tables: which column is predicted, what kind of task that is, and which columns are used."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from litelambda.common.errors import UsageError
from litelambda.common.wording import counted
from litelambda.scaffold.columns import Column, Survey
from litelambda.scaffold.project import Found, Given

_LABEL_NAMES = ("label", "labels", "target", "class", "y", "outcome", "category", "sentiment")
_MOST_CLASSES_OF_NUMBERS = 20
_SETS_SHARE = 0.1  # of the cells with a "|", from which on they name several labels
USED = ("number", "category")
_TEXT_ADVICE = ". Texts are read from CSV files and JSON Lines, and classify with one --label: save it as one of these"


def inspect_table(path: Path, seen: Survey, given: Given) -> Found:
    """The `data` section for a table of numbers and categories, or of texts.

    Raises:
        UsageError: the column to predict is not known, or it is not one that can be predicted.
    """
    found = Found()
    labels = choose_labels(seen, given, found)
    _choose_task(seen, labels, given, found)
    others = [column for name, column in seen.columns.items() if name not in labels]
    texts = [column.name for column in others if column.kind == "text"]
    if texts and path.suffix.lower() != ".parquet" and len(labels) == 1:
        _use_text(texts, others, found)
    else:
        _use_columns(path, seen, others, found)
    return found


def choose_labels(seen: Survey, given: Given, found: Found) -> list[str]:
    """The columns to predict: those that were given, or that are called so, or the only one of categories.

    Raises:
        UsageError: the column does not exist, or it cannot be found out and no one can be asked.
    """
    columns = seen.columns
    if given.label:
        if missing := [name for name in given.label if name not in columns]:
            raise UsageError(f"no column {', '.join(missing)} to predict: choose from {', '.join(columns)}")
        found.put("data.label", given.label[0] if len(given.label) == 1 else [*given.label])
        return [*given.label]
    name, reason = _likely_label(seen)
    if not name or given.ask:
        if given.ask is None:
            listed = "\n".join(f"  {each.name}: {each.describe()}" for each in columns.values())
            raise UsageError(f"say which column to predict, with --label COLUMN:\n{listed}")
        asked = given.ask("Which column should be predicted?", name or [*columns][-1], [*columns])
        reason = reason if asked == name else "as you said"
        name = asked
    found.guess("data.label", name, reason)
    return [name]


def _likely_label(seen: Survey) -> tuple[str, str]:
    for wanted in _LABEL_NAMES:
        if matches := [name for name in seen.columns if name.lower() == wanted]:
            return matches[0], "columns of this name are usually what is predicted"
    *others, last = seen.columns.values()
    if last.kind == "category" and not any(column.kind == "category" for column in others):
        return last.name, "the last column, and the only one of categories"
    return "", ""


def _choose_task(seen: Survey, labels: Sequence[str], given: Given, found: Found) -> None:
    columns = [seen.columns[name] for name in labels]
    task, reason = _likely_task(columns)
    if given.task:
        found.put("data.task", given.task)
    elif not task:
        first = columns[0]
        raise UsageError(
            f"column {first.name!r} cannot be predicted: {first.describe()}. Choose another one with --label, or set "
            "--task"
        )
    else:
        found.guess("data.task", task, reason)


def _likely_task(columns: Sequence[Column]) -> tuple[str, str]:
    first, distinct = columns[0], len(columns[0].values)
    if len(columns) > 1:
        are_marks = all(not column.texts and {*column.values} <= {0, 1} for column in columns)
        return ("multi_label", "columns of 0 and 1") if are_marks else ("regression", "columns of numbers")
    if first.kind == "number" and not (first.whole and distinct <= min(_MOST_CLASSES_OF_NUMBERS, first.filled / 5)):
        return "regression", f"{first.name} has {distinct if distinct <= 1000 else 'more than 1,000'} different numbers"
    if first.kind == "number":
        return "classification", f"{first.name} has only {distinct} different whole numbers"
    if first.kind not in ("category", "mixed"):
        return "", ""
    several = sum(count for value, count in first.values.items() if isinstance(value, str) and "|" in value)
    if several > _SETS_SHARE * first.filled:
        return "multi_label", f"cells of {first.name} name several labels, with | between them"
    return "classification", f"{first.name} has {distinct} different values"


def _use_text(texts: Sequence[str], others: Sequence[Column], found: Found) -> None:
    found.put("data.format", "text")
    found.guess("data.text", texts[0], "it holds text")
    if left := [column.name for column in others if column.name != texts[0]]:
        found.notes.append(f"a model of text reads one column: left out {', '.join(left)}")


def _use_columns(path: Path, seen: Survey, others: Sequence[Column], found: Found) -> None:
    used = [column for column in others if column.kind in USED]
    left = [column for column in others if column.kind not in USED]
    if not used:
        reasons = "; ".join(f"{column.name}: {column.why_left_out()}" for column in left)
        advice = _TEXT_ADVICE if any(column.kind == "text" for column in left) else ""
        raise UsageError(f"{path} has no column to predict from. {reasons}{advice}")
    found.put("data.format", "parquet" if path.suffix.lower() == ".parquet" else "csv")
    if left:
        found.guess("data.features", [column.name for column in used], f"without {', '.join(c.name for c in left)}")
        found.notes += [f"column {column.name!r} is left out: {column.why_left_out()}" for column in left]
    found.notes += [f"the index column {name!r} is left out" for name in seen.index]
    if seen.dialect and not seen.dialect.is_plain:
        found.notes.append(seen.dialect.describe())
    if gaps := [column for column in used if column.gaps]:
        counts = ", ".join(f"{column.name} {column.gaps:,}" for column in gaps)
        found.guess("data.missing", "median", f"{counts} of {counted(seen.num_rows, 'row')} have no value")
        found.comments["data.missing"] = "of the training rows; of categories the most frequent"
    if any(column.kind == "number" for column in used):
        found.put("data.normalize", "standardize", "each column of numbers by itself")
    if any(column.kind == "category" for column in used):
        found.put("data.unknown", "zeros", "a category that no training row has is none of the known ones")
    if marked := [column.name for column in used if column.name in seen.categories]:
        found.guess("data.categories", marked, "they are categories in pandas")
    if codes := [column.name for column in used if column.is_few_codes]:
        found.notes.append(f"if the numbers in {', '.join(codes)} stand for categories, list them in data.categories")


_WHO = re.compile(r"(user|customer|listener|member|visitor|viewer|reader|client|account)s?([_ ]?id)?", re.IGNORECASE)
_WHAT = re.compile(
    r"(item|product|movie|film|artist|song|track|book|article|video|show|game|title|sku)s?([_ ]?id)?", re.IGNORECASE
)
_STARS = re.compile(r"(rating|stars?|score)s?", re.IGNORECASE)


def is_interactions(seen: Survey, given: Given) -> bool:
    """Whether the lines of a table are who chose what: as the user says, or by the names of its columns."""
    if given.task:
        return given.task == "recommendation"
    return not given.label and _matching(seen, _WHO) != "" and _matching(seen, _WHAT) != ""


def inspect_interactions(path: Path, seen: Survey, item_features: Sequence[str], item: str, found: Found) -> None:
    """The `data` section for interactions.

    Args:
        path: of the table.
        seen: what was seen of it.
        item_features: columns with one value for each item.
        item: the column with the item.
        found: what is known so far; written to.

    Raises:
        UsageError: the file is not one that interactions are read from, or has no column besides the item.
    """
    if path.suffix.lower() == ".parquet" or seen.dialect is None or not seen.dialect.is_plain:
        raise UsageError(f"{path}: interactions are read from CSV files with commas: save it as one")
    stars = next((c.name for c in seen.columns.values() if c.kind == "number" and _STARS.fullmatch(c.name)), "")
    taken = {item, *item_features, stars}
    user = [c.name for c in seen.columns.values() if c.name not in taken and _is_known_of_a_user(c)]
    if not user:
        raise UsageError(f"{path} has no column that says who chose: the columns are {', '.join(seen.columns)}")
    found.guess("data.user", user, "what a request has: who asks, and what is known of them")
    found.guess("data.item", item, "what is recommended")
    if item_features:
        found.guess("data.item_features", [*item_features], "the same in all lines of an item")
    if stars:
        limit = float(sorted(seen.columns[stars].values.elements())[seen.columns[stars].numbers // 2])
        found.put("data.label", stars)
        found.guess("data.positive_from", limit, f"half of the lines have this many {stars}, or more")
    if left := [name for name in seen.columns if name not in {*taken, *user}]:
        found.notes.append(f"left out, as of no user and no item: {', '.join(left)}")


def item_column(seen: Survey, given: Given) -> str:
    """The column with the item.

    Raises:
        UsageError: none is called so, and no one can be asked.
    """
    name = given.label[0] if given.label else _matching(seen, _WHAT)
    if not name and given.ask:
        name = given.ask("Which column names the item to recommend?", [*seen.columns][-1], [*seen.columns])
    if name not in seen.columns:
        raise UsageError(f"say which column names the item, with --label; the columns are {', '.join(seen.columns)}")
    return name


def _matching(seen: Survey, pattern: re.Pattern[str]) -> str:
    return next((name for name in seen.columns if pattern.fullmatch(name)), "")


def _is_known_of_a_user(column: Column) -> bool:
    return bool(_WHO.fullmatch(column.name)) or column.kind == "category" or column.is_few_codes
