"""JSON Schemas of requests and responses: those all models share, and those that follow from a model's manifest."""

from __future__ import annotations

from litelambda_serving.inference_protocol.inputs import DATATYPES
from litelambda_serving.manifest import DEFAULT_SIGNATURE
from litelambda_serving.openapi.explain_schemas import EXPLAIN_PARAMETERS, explain_schemas
from litelambda_serving.tensor import DYNAMIC
from litelambda_serving.tfserving.best_classes import scores_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.tensor import TensorSpec

__all__ = ["COMMON_SCHEMAS", "model_schemas"]

_FLOATS_BELOW = {2: 65520.0, 4: 3.4028235677973366e38}
"""From here on, a number no longer rounds to one that the dtype of so many bytes can hold."""

# V2's optional fields: null in them is absence.
_ID = {"type": ["string", "null"]}
_PARAMETERS = {"type": ["object", "null"]}

_STRING = {"type": "string"}
_STRINGS = {"type": "array", "items": _STRING}


def _object(properties: dict[str, Any], required: Sequence[str] | None = None, **more: Any) -> dict[str, Any]:
    names = list(properties) if required is None else list(required)
    return {"type": "object", "properties": properties, "required": names, **more}


_BASE64 = _object(
    {"b64": {"type": "string", "pattern": "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"}},
    additionalProperties=False,
)

_BEST_CLASSES = {
    "top_k": {"type": ["integer", "null"], "minimum": 1},
    "threshold": {"type": ["number", "null"], "minimum": -3.4e38, "maximum": 3.4e38},
}
_BEST = {"type": "array", "items": _object({"label": _STRING, "score": {"type": "number"}})}
"""What a request may ask for where the model has a score for each class, and what a row's scores are then."""

_METADATA_TENSOR = _object(
    {"name": _STRING, "datatype": {"enum": list(DATATYPES.values())},
     "shape": {"type": "array", "items": {"type": "integer", "minimum": -1}}}
)  # fmt: skip

_METADATA_FIELD = _object(
    {
        "name": _STRING,
        "type": _STRING,
        "shape": {"type": "array", "items": {"type": "integer"}},
        "categories": {"type": "array"},
        "missing": {},
        "fit": _STRING,
    },
    ["name", "type", "shape"],
)

_METADATA_PARAMETERS = _object(
    {"labels": _STRINGS, "task": _STRING, "metrics": {"type": "object"}, "created": _STRING}, []
)

_STATE = _object({"version": _STRING, "state": _STRING, "status": {"type": "object"}})

COMMON_SCHEMAS: dict[str, Any] = {
    "ExplainParameters": EXPLAIN_PARAMETERS,
    "Error": _object({"error": _STRING}),
    "Models": _object({"models": _STRINGS}),
    "Ready": _object({"name": _STRING, "ready": {"type": "boolean"}}),
    "ServerMetadata": _object({"name": _STRING, "version": _STRING, "extensions": _STRINGS}),
    "Status": _object(
        {"name": _STRING, "ready": {"type": "boolean"}, "model_version_status": {"type": "array", "items": _STATE}}
    ),
    "ModelMetadata": _object(
        {
            "name": _STRING,
            "versions": _STRINGS,
            "platform": _STRING,
            **{side: {"type": "array", "items": _METADATA_TENSOR} for side in ("inputs", "outputs")},
            "raw_inputs": {"type": "array", "items": _METADATA_FIELD},
            "warm_up": {"type": "object"},
            "parameters": _METADATA_PARAMETERS,
        },
        ["name", "versions", "platform", "inputs", "outputs"],
    ),
    "Statistics": _object({"model_stats": {"type": "array", "items": {"type": "object"}}}),
    "IndexRequest": _object({"ready": {"type": ["boolean", "null"]}, "id": _ID, "parameters": _PARAMETERS}, []),
    "RepositoryIndex": {
        "type": "array",
        "items": _object(dict.fromkeys(("name", "version", "state", "reason"), _STRING)),
    },
}
"""Schemas that do not depend on a model."""


def model_schemas(manifest: Manifest) -> dict[str, Any]:
    """Schemas of a model's requests and responses, by name."""
    name = manifest.model
    return {
        f"{name}.PredictRequest": _predict_request(manifest),
        f"{name}.PredictResponse": _predict_response(manifest),
        f"{name}.InferRequest": _infer_request(manifest),
        f"{name}.InferResponse": _infer_response(manifest),
        **explain_schemas(manifest),
    }


def _predict_request(manifest: Manifest) -> dict[str, Any]:
    signature = manifest.signatures[manifest.default_signature]
    inputs = signature.inputs
    common: dict[str, Any] = {"signature_name": {"enum": ["", DEFAULT_SIGNATURE, manifest.default_signature]}}
    if scores_of(signature, manifest) is not None:
        common |= _BEST_CLASSES
    named = _object({spec.name: _row(spec) for spec in inputs}, additionalProperties=False)
    columns = _object({spec.name: _whole(spec) for spec in inputs})
    forms = []
    rows = signature.rows
    if rows:
        # All rows in one of the two forms, never in both.
        row_forms = [named, _row(inputs[0])] if len(inputs) == 1 else [named]
        count = {"minItems": 1} if rows == DYNAMIC else {"minItems": rows, "maxItems": rows}
        instances = {"anyOf": [{"type": "array", **count, "items": form} for form in row_forms]}
        forms.append(_object({"instances": instances, "inputs": False, **common}, ["instances"]))
    whole = {"anyOf": [columns, _whole(inputs[0])]} if len(inputs) == 1 else columns
    forms.append(_object({"inputs": whole, "instances": False, **common}, ["inputs"]))
    if manifest.preprocessing:
        from litelambda_serving.openapi.raw_schemas import predict_forms

        for form in forms:
            form["properties"]["prepared"] = {"const": True}
            form["required"].append("prepared")
        forms = [*predict_forms(manifest, common), *forms]
    return forms[0] if len(forms) == 1 else {"oneOf": forms}


def _predict_response(manifest: Manifest) -> dict[str, Any]:
    signature = manifest.signatures[manifest.default_signature]
    outputs = signature.outputs
    single = len(outputs) == 1
    scores = scores_of(signature, manifest)

    def answer(spec: TensorSpec, form: Callable[..., dict[str, Any]]) -> dict[str, Any]:
        if spec is not scores:
            return form(spec, _name if spec.name in manifest.vocabularies else _answer_value)
        best = _BEST if form is _row else {"type": "array", "items": _BEST}
        return {"anyOf": [form(spec, _answer_value), best]}

    rows, whole = (
        answer(outputs[0], form) if single else _object({spec.name: answer(spec, form) for spec in outputs})
        for form in (_row, _whole)
    )
    forms = [_object({"outputs": whole})]
    if signature.rows:
        forms.append(_object({"predictions": {"type": "array", "items": rows}}))
    return {"oneOf": forms} if len(forms) > 1 else forms[0]


def _infer_request(manifest: Manifest) -> dict[str, Any]:
    inputs = manifest.signatures[manifest.default_signature].inputs
    request = _infer_form(manifest, [_infer_input(spec) for spec in inputs], _PARAMETERS)
    if not manifest.preprocessing:
        return request
    from litelambda_serving.openapi.raw_schemas import infer_inputs

    request["properties"]["parameters"] = _object({"prepared": {"const": True}})
    request["required"].append("parameters")
    raw = {"type": ["object", "null"], "properties": {"prepared": {"const": False}}}
    return {"anyOf": [_infer_form(manifest, infer_inputs(manifest), raw), request]}


def _infer_form(manifest: Manifest, inputs: list[dict[str, Any]], parameters: dict[str, Any]) -> dict[str, Any]:
    """A request with these inputs, in any order."""
    outputs = {"enum": [spec.name for spec in manifest.signatures[manifest.default_signature].outputs]}
    names = [each["properties"]["name"] for each in inputs]
    return _object(
        {
            "id": _ID,
            "parameters": parameters,
            "inputs": {
                "type": "array",
                "minItems": len(inputs),
                "maxItems": len(inputs),
                "items": {"oneOf": inputs},
                "allOf": [{"contains": _object({"name": name})} for name in names],
            },
            "outputs": {
                "type": ["array", "null"],
                "items": _object({"name": outputs, "parameters": _PARAMETERS}, ["name"]),
            },
        },
        ["inputs"],
    )


def _infer_input(spec: TensorSpec) -> dict[str, Any]:
    flat: dict[str, Any] = {"type": "array", "items": _flat_value(spec)}
    if not spec.batched:
        flat |= {"minItems": spec.row_values, "maxItems": spec.row_values}
    return _object(
        {
            "name": {"const": spec.name},
            "datatype": {"const": DATATYPES[spec.dtype.name]},
            "shape": _shape(spec),
            "parameters": _PARAMETERS,
            "data": {"anyOf": [_whole(spec, _flat_value), flat]} if len(spec.shape) > 1 else flat,
        },
        ["name", "datatype", "shape", "data"],
    )


def _infer_response(manifest: Manifest) -> dict[str, Any]:
    signature = manifest.signatures[manifest.default_signature]
    datatypes = sorted({DATATYPES[spec.dtype.name] for spec in signature.outputs} | {"BYTES"})
    output = _object(
        {
            "name": {"enum": [spec.name for spec in signature.outputs]},
            "datatype": {"enum": datatypes},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "parameters": {"type": "object"},
            "data": {"type": "array"},
        },
        ["name", "datatype", "shape"],
    )
    return _object(
        {
            "model_name": {"const": manifest.model},
            "model_version": _STRING,
            "id": _STRING,
            "outputs": {"type": "array", "items": output},
        },
        ["model_name", "model_version", "outputs"],
    )


def _shape(spec: TensorSpec) -> dict[str, Any]:
    sizes = [{"const": size} if size >= 0 else {"type": "integer", "minimum": 1} for size in spec.shape]
    return {"type": "array", "prefixItems": sizes, "minItems": len(sizes), "maxItems": len(sizes)}


def _row(spec: TensorSpec, value: Callable[[TensorSpec], dict[str, Any]] | None = None) -> dict[str, Any]:
    return _nested((value or _value)(spec), spec.shape[1:])


def _whole(spec: TensorSpec, value: Callable[[TensorSpec], dict[str, Any]] | None = None) -> dict[str, Any]:
    if not spec.batched:
        return _nested((value or _value)(spec), spec.shape)
    return {"type": "array", "minItems": 1, "items": _row(spec, value)}


def _nested(schema: dict[str, Any], shape: Sequence[int]) -> dict[str, Any]:
    for size in reversed(shape):
        schema = {"type": "array", "minItems": size, "maxItems": size, "items": schema}
    return schema


def _value(spec: TensorSpec) -> dict[str, Any]:
    """What a request of V1 may hold for one element."""
    return {"anyOf": [_STRING, _BASE64]} if spec.dtype.kind == "string" else _flat_value(spec)


def _answer_value(spec: TensorSpec) -> dict[str, Any]:
    """What an answer of V1 may hold: more than a request, as a model can make NaN and infinities."""
    return {"type": "number"} if spec.dtype.kind == "float" else _value(spec)


def _name(spec: TensorSpec) -> dict[str, Any]:  # noqa: ARG001 - as `_answer_value`
    """What an answer of V1 holds for a number that stands for a name."""
    return _STRING


def _flat_value(spec: TensorSpec) -> dict[str, Any]:
    """What a request of V2 may hold for one element."""
    dtype = spec.dtype
    if spec.limits is not None:
        kind = "integer" if dtype.kind == "int" else "number"
        return {"type": kind, "minimum": spec.limits[0], "maximum": spec.limits[1]}
    if dtype.kind == "string":
        return _STRING
    if dtype.kind == "bool":
        return {"type": "boolean"}
    if dtype.kind == "float":
        limit = _FLOATS_BELOW.get(dtype.itemsize)
        return {"type": "number", **({"exclusiveMinimum": -limit, "exclusiveMaximum": limit} if limit else {})}
    bits = dtype.itemsize * 8
    signed = not dtype.name.startswith("u")
    return {"type": "integer", "minimum": -(1 << (bits - 1)) if signed else 0,
            "maximum": (1 << (bits - 1 if signed else bits)) - 1}  # fmt: skip
