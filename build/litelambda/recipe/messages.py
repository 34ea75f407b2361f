"""Turns pydantic's errors about a recipe into lines that name the key, the value and what is valid.

It knows how sections nest and how members of a union are distinguished, not what the sections mean.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple, get_args

from pydantic import BaseModel, Tag, ValidationError

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo
    from pydantic_core import ErrorDetails

_QUOTED = r"'([^']*)'"  # pydantic lists a literal's values as 'a', 'b' or 'c'


def describe_problems(error: ValidationError, root: type[BaseModel]) -> list[str]:
    """Describe every error in one line, in the recipe's terms.

    Args:
        error: from pydantic.
        root: the section class that the whole recipe was checked against.
    """
    return [_describe(details, root) for details in error.errors(include_url=False)]


class _Place(NamedTuple):
    """The place of an error in the recipe."""

    path: str
    section: type[BaseModel] | None
    annotation: object


def _describe(details: ErrorDetails, root: type[BaseModel]) -> str:
    place = _locate(details["loc"], root)
    path, kind, given, context = place.path, details["type"], details["input"], details.get("ctx", {})
    if kind == "extra_forbidden":
        keys = _fields(place.section) if place.section else ()
        return f"{path}: unknown key{_suggest(path.rpartition('.')[2], keys)}"
    if kind == "missing":
        return f"{path}: is missing"
    if kind == "literal_error":
        return f"{path}: {_show(given)} is not valid{_suggest(given, re.findall(_QUOTED, context['expected']))}"
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _describe_tag(place, given, context["discriminator"].strip("'"))
    message = details["msg"].removeprefix("Value error, ")
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        message = "expected a table"
    return f"{path}: {message[0].lower()}{message[1:]}, got {_show(given)}"


def _describe_tag(place: _Place, given: object, key: str) -> str:
    """Describe a table whose `name`, `format` or `builder`, which decides its other keys, is wrong or missing."""
    choices = [str(tag) for tag in _members(place.annotation)]
    if not isinstance(given, dict) or key not in given:
        return f"{place.path}.{key}: is missing; choose {_or(choices)}"
    return f"{place.path}.{key}: {_show(given[key])} is not valid{_suggest(given[key], choices)}"


def _locate(location: tuple[int | str, ...], root: type[BaseModel]) -> _Place:
    """Follow pydantic's location to a dotted path and the section that holds its last key.

    In a union pydantic's next step is the tag of the chosen member, which is not a key of the recipe and is skipped.
    """
    path = ""
    annotation: object = root
    section: type[BaseModel] | None = None
    for step in location:
        members = _members(annotation)
        if step in members:
            annotation = members[step]
            continue
        section = _section(annotation)
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
        field = _fields(section).get(str(step)) if section else None
        annotation = field.annotation if field else None
    return _Place(path.removeprefix("."), section, annotation)


def _fields(section: type[BaseModel]) -> dict[str, FieldInfo]:
    """The fields of a section by their keys in the recipe."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def _members(annotation: object) -> dict[int | str, object]:
    """List the members of a discriminated union by their tags; empty for anything else."""
    tagged: dict[int | str, object] = {}
    for member in get_args(annotation):
        explicit = [each.tag for each in get_args(member)[1:] if isinstance(each, Tag)]
        kind = getattr(member, "kind", None)
        if explicit:
            tagged[explicit[0]] = get_args(member)[0]
        elif kind:
            tagged[kind] = member
    return tagged


def _section(annotation: object) -> type[BaseModel] | None:
    """Find the one section that an annotation (perhaps `Section | None`) stands for."""
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, BaseModel):
            return candidate
    return None


def _suggest(given: object, choices: Iterable[str]) -> str:
    """List the valid values, and the one that was probably meant."""
    choices = list(choices)
    meant = difflib.get_close_matches(str(given), choices, n=1, cutoff=0.6)
    hint = f"; did you mean {meant[0]!r}?" if meant else ""
    return f"; choose {_or(choices)}{hint}"


def _or(choices: Iterable[str]) -> str:
    *most, last = choices
    return f"{', '.join(most)} or {last}" if most else last


def _show(value: object) -> str:
    """Show a value as it was written, shortened where it is long."""
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."
