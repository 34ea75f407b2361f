"""The keys of a recipe as tables, from the pydantic sections that check it."""

from __future__ import annotations

import ast
import inspect
import json
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

from litelambda.recipe.imports import ImportSection
from litelambda.recipe.section_types import Section
from litelambda.recipe.sections import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Table = Callable[[tuple[str, ...], list[tuple[Any, ...]]], str]

_SIMPLE = {"integer": "integer", "number": "number", "string": "text", "boolean": "true or false", "null": ""}


def sections(table: Table) -> str:
    """Every table of a recipe, in the order of the recipe; then that of a recipe that imports."""
    parts: list[str] = []
    for name, field in Recipe.model_fields.items():
        parts += _section(name, _classes(field.annotation), table)
    parts += _section("import", [ImportSection], table)
    return "\n\n".join(parts)


def _section(path: str, classes: list[type[Section]], table: Table) -> Iterator[str]:
    """The tables at `path`: the keys that its variants share, those of each variant, then the tables inside."""
    depth = "##" + "#" * path.count(".")
    shared = _shared_base(classes)
    shared_keys = shared.model_fields if shared else {}
    yield f"{depth} `[{path}]`"
    if shared:
        yield f"{_summary(shared)}\n\n{_table(shared, shared_keys, table)}"
    for kind in classes if len(classes) > 1 else []:
        own = {name: field for name, field in kind.model_fields.items() if name not in shared_keys}
        text = f"{_summary(kind)}\n\n{_table(kind, own, table)}".rstrip()
        yield f"{depth}# `[{path}]` with `{_distinction(kind)}`\n\n{text}"
    inner = {name: _classes(field.annotation) for kind in classes for name, field in kind.model_fields.items()}
    for name, below in inner.items():
        if below:
            yield from _section(f"{path}.{name}", below, table)


def _classes(annotation: object) -> list[type[Section]]:
    """The sections that a field may hold."""
    if inspect.isclass(annotation) and issubclass(annotation, Section):
        return [annotation]
    return [kind for part in get_args(annotation) for kind in _classes(part)]


def _shared_base(classes: list[type[Section]]) -> type[Section] | None:
    """The class whose keys all of these have; None where only `Section` is shared."""
    bases = (base for base in classes[0].__mro__ if all(issubclass(kind, base) for kind in classes))
    found = next(bases)
    return None if found is Section else found


def _distinction(kind: type[Section]) -> str:
    """The key by which this variant is recognized."""
    schema = kind.model_json_schema()["properties"]
    for name, field in schema.items():
        if "const" in field:
            return f'{name} = "{field["const"]}"'
    return f"{next(iter(schema))} = …"


def _summary(kind: type[Section]) -> str:
    return (inspect.getdoc(kind) or "").partition("\n\n")[0]


def _table(kind: type[Section], fields: dict[str, Any], table: Table) -> str:
    schema, meanings = kind.model_json_schema(), meanings_of(kind)
    rows = [
        (f"`{name}`", _type(schema["properties"][name], schema), _default(field), meanings.get(name, ""))
        for name, field in sorted(fields.items(), key=lambda item: item[0] not in kind.__annotations__)
        if "const" not in schema["properties"][name]  # it is in the heading
    ]
    if not rows:
        return ""
    columns = 4 if any(row[3] for row in rows) else 3  # an optimizer's keys are those of Keras
    return table(("key", "type", "default", "meaning")[:columns], [row[:columns] for row in rows])


def meanings_of(kind: type[Any]) -> dict[str, str]:
    """The docstring below each annotated name of a class, and of those that it extends."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith("litelambda"):
            (definition,) = ast.parse(inspect.getsource(base)).body
            for key, text in pairwise(getattr(definition, "body", [])):
                is_text = isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant)
                if isinstance(key, ast.AnnAssign) and is_text:
                    found[ast.unparse(key.target)] = " ".join(str(text.value.value).split())
    return found


def _default(field: Any) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if value is None or value == {} or isinstance(value, Section):
        return ""
    return f"`{json.dumps(value)}`"


def _type(schema: dict[str, Any], whole: dict[str, Any]) -> str:
    """A JSON Schema in words."""
    if "$ref" in schema:
        return "table"
    for combination in ("anyOf", "oneOf"):
        if combination in schema:
            return " or ".join(dict.fromkeys(filter(None, (_type(part, whole) for part in schema[combination]))))
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        return f"list of {_type(schema['items'], whole)}"
    if schema["type"] == "object":
        values = schema.get("additionalProperties")
        return f"table of {_type(values, whole)}" if isinstance(values, dict) else "table"
    return _SIMPLE[schema["type"]] + _limits(schema)


def _limits(schema: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    limits = [f"{sign} {schema[key]}" for key, sign in signs.items() if key in schema]
    return f" {', '.join(limits)}" if limits else ""
