"""JSON Schemas of requests with raw values. Loaded with the first document about a model that prepares them."""

from __future__ import annotations

from litelambda_serving.inference_protocol.inputs import DATATYPES
from litelambda_serving.preprocessing.describe import column_of, fields_of, ignored_names
from litelambda_serving.tensor import DYNAMIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.preprocessing.base import Field

__all__ = ["infer_inputs", "predict_forms"]

_FILE = {
    "type": "object",
    "properties": {"b64": {"type": "string", "contentEncoding": "base64"}},
    "required": ["b64"],
    "additionalProperties": False,
}
_NUMBERS = [name for name in DATATYPES.values() if name not in ("BOOL", "BYTES")]


def predict_forms(manifest: Manifest, common: dict[str, Any]) -> list[dict[str, Any]]:
    """The forms of a `:predict` with raw values: rows, then columns.

    Args:
        manifest: of a model with preprocessing.
        common: properties that every form has.
    """
    fields = fields_of(manifest)
    values = {field.name: _value(manifest, field) for field in fields}
    ignored: dict[str, Any] = {name: {} for name in ignored_names(manifest)}
    row = {"type": "object", "properties": values | ignored, "required": list(values), "additionalProperties": False}
    bare = {"type": "array", "prefixItems": [*values.values()], "minItems": len(values), "maxItems": len(values)}
    rows = manifest.signatures[manifest.default_signature].rows
    count = {"minItems": 1} if rows in (0, DYNAMIC) else {"minItems": rows, "maxItems": rows}
    forms = [row, next(iter(values.values())) if len(fields) == 1 else bare]
    lists = {"anyOf": [{"type": "array", **count, "items": form} for form in forms]}
    columns = {name: {"type": "array", **count, "items": value} for name, value in values.items()}
    named = {"type": "object", "properties": columns | ignored, "required": list(values), "additionalProperties": False}
    said = {**common, "prepared": {"const": False}}
    found = []
    if rows:
        properties = {"instances": lists, "inputs": False, **said}
        found.append({"type": "object", "properties": properties, "required": ["instances"]})
    properties = {"inputs": {"anyOf": [named, *lists["anyOf"]]}, "instances": False, **said}
    return [*found, {"type": "object", "properties": properties, "required": ["inputs"]}]


def infer_inputs(manifest: Manifest) -> list[dict[str, Any]]:
    """An input of a V2 request for each field."""
    return [_infer_input(field) for field in fields_of(manifest)]


def _value(manifest: Manifest, field: Field) -> dict[str, Any]:
    """The raw value of a row."""
    column = column_of(manifest, field)
    if field.type in ("number", "category"):
        kinds = ["number"] if field.type == "number" else ["string", "number", "boolean"]
        return {"type": kinds + (["null"] if column.get("missing") is not None else [])}
    if field.type == "text":
        return {"anyOf": [{"type": "string"}, _FILE]}
    schema: dict[str, Any] = {"type": "number"}
    for size in reversed(field.shape):
        schema = {"type": "array", "minItems": size, "maxItems": size, "items": schema}
    return {"anyOf": [_FILE, schema]} if field.type == "image" else schema


def _infer_input(field: Field) -> dict[str, Any]:
    takes_text, takes_numbers = field.type in ("category", "text", "image"), field.type != "text"
    properties: dict[str, Any] = {
        "name": {"const": field.name},
        "datatype": {"enum": (_NUMBERS if takes_numbers else []) + (["BYTES"] if takes_text else [])},
        "shape": {"type": "array", "items": {"type": "integer", "minimum": 1}, "minItems": 1},
        "parameters": {"type": ["object", "null"]},
        "data": {"type": "array", "minItems": 1},
    }
    return {"type": "object", "properties": properties, "required": ["name", "datatype", "shape"]}
