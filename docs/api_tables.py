"""The public Python API as Markdown: signatures, and Google docstrings with their sections."""

from __future__ import annotations

import inspect
import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import is_dataclass
from types import ModuleType
from typing import Any

_SECTION = re.compile(r"^(Args|Attributes|Returns|Yields|Raises|Examples?):\n((?:(?: .*)?\n)*)", re.MULTILINE)
_EXAMPLE = re.compile(r"^Example::\n\n((?:(?: .*)?\n)*)", re.MULTILINE)
_ENTRY = re.compile(r"^(\*{0,2}[\w., ]+):\s+(.*(?:\n +.*)*)", re.MULTILINE)
_LISTED = ("Args", "Attributes", "Raises")
_LONGEST_LINE = 100


def public_api(module: ModuleType) -> str:
    """Everything that a module's `__all__` names: its functions first, then its classes."""
    things = {name: getattr(module, name) for name in module.__all__ if not name.startswith("__")}
    ordered = sorted(things, key=lambda name: inspect.isclass(things[name]))
    return "\n\n".join(part for name in ordered for part in _describe(name, things[name]))


def _describe(name: str, thing: Any, depth: int = 2) -> Iterator[str]:
    """A heading, the signature and the docstring; of a class that users make, its public methods too."""
    yield f"{'#' * depth} {name}"
    is_made_by_users = not inspect.isclass(thing) or ("__init__" in vars(thing) and not is_dataclass(thing))
    if is_made_by_users:
        yield f"```python\n{_signature(name, thing)}\n```"
    yield from _sections(inspect.getdoc(thing) or "")
    for base in getattr(thing, "__bases__", ()):
        yield from _inherited(base)
    if inspect.isclass(thing) and is_made_by_users:
        for method, member in vars(thing).items():
            if inspect.isfunction(member) and not method.startswith("_"):
                yield from _describe(f"{name}.{method}", member, depth + 1)


def _inherited(base: type[Any]) -> Iterator[str]:
    """The attributes that a result has of the class it extends."""
    if is_dataclass(base):
        yield from (part.removeprefix("Attributes:\n\n") for part in list(_sections(inspect.getdoc(base) or ""))[1:])


def _signature(name: str, thing: Any) -> str:
    """`name(argument: type = default, …) -> type`, an argument per line where it is long."""
    signature = inspect.signature(thing)
    parameters = list(_parameters(signature))
    returned = "" if inspect.isclass(thing) else f" -> {signature.return_annotation}"
    line = f"{name}({', '.join(parameters)}){returned}"
    if len(line) <= _LONGEST_LINE:
        return line
    return f"{name}(\n" + "".join(f"    {each},\n" for each in parameters) + f"){returned}"


def _parameters(signature: inspect.Signature) -> Iterator[str]:
    """Each parameter as it is written; annotations are texts already."""
    keyword_only = False
    for each in signature.parameters.values():
        if each.kind is each.KEYWORD_ONLY and not keyword_only:
            keyword_only = True
            yield "*"
        if each.name != "self":
            value = json.dumps(each.default) if isinstance(each.default, str) else each.default
            default = "" if each.default is each.empty else f" = {value}"
            yield f"{each.name}: {each.annotation}{default}"


def _sections(text: str) -> Iterator[str]:
    text += "\n"
    yield _EXAMPLE.sub(
        lambda code: f"```python\n{textwrap.dedent(code[1]).strip()}\n```\n", _SECTION.sub("", text)
    ).strip()
    for title, body in _SECTION.findall(text):
        content = textwrap.dedent(body).strip()
        if title.startswith("Example"):
            yield f"```pycon\n{content}\n```"
        elif title in _LISTED:
            entries = (f"- `{name}`: {' '.join(meaning.split())}" for name, meaning in _ENTRY.findall(content))
            yield f"{title}:\n\n" + "\n".join(entries)
        else:
            yield f"{title}: {' '.join(content.split())}"
