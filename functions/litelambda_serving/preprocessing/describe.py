"""What raw values a model takes, read from its manifest alone, without its vocabularies and tokenizers."""

from __future__ import annotations

from litelambda_serving.preprocessing.base import Field

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.manifest import Manifest

__all__ = ["column_of", "details_of", "fields_of", "ignored_names"]


def fields_of(manifest: Manifest) -> list[Field]:
    """The fields of a row, in the order of the inputs that they are for."""
    found: dict[str, Field] = {}
    for spec in manifest.signatures[manifest.default_signature].inputs:
        document = manifest.preprocessing.get(spec.name, {})
        kind = document.get("kind", "")
        shape = spec.shape[1:] if spec.batched else spec.shape
        if kind == "table":
            fields = [Field(column["name"], column["type"]) for column in document["columns"]]
        elif kind == "text":
            fields = [Field(document["field"], "text")]
        elif kind == "image":
            fields = [Field(document.get("field", spec.name), "image", tuple(document.get("shape", shape)))]
        else:
            fields = [Field(spec.name, "tensor", shape)]
        found |= {field.name: field for field in fields}
    return list(found.values())


def ignored_names(manifest: Manifest) -> list[str]:
    """Names that a row may also have, such as the column that the model predicts."""
    labels = [document.get("label", []) for document in manifest.preprocessing.values()]
    return [name for label in labels for name in ([label] if type(label) is str else label)]


def column_of(manifest: Manifest, field: Field) -> dict[str, Any]:
    """A table's column in the manifest; empty for a field that is not one."""
    for document in manifest.preprocessing.values():
        for column in document.get("columns", ()):
            if column["name"] == field.name:
                return dict(column)
    return {}


def details_of(manifest: Manifest, field: Field) -> dict[str, Any]:
    """What a form needs besides: a field's categories, what a missing value counts as, how a picture is made to fit."""
    column = column_of(manifest, field)
    found = {"categories": column.get("vocabulary"), "missing": column.get("missing")}
    if field.type == "image":
        found["fit"] = next(
            (each.get("fit") for name, each in manifest.preprocessing.items() if each.get("field", name) == field.name),
            None,
        )
    return {name: value for name, value in found.items() if value is not None}
