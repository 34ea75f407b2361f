"""JSON Schemas of requests for explanations, and of their answers."""

from __future__ import annotations

from litelambda_serving.explain.gradients import has_gradients
from litelambda_serving.explain.options import BASELINES, FORMATS, MAX_RUNS, METHODS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.manifest import Manifest

__all__ = ["EXPLAIN_PARAMETERS", "explain_schemas"]

EXPLAIN_PARAMETERS: dict[str, Any] = {
    "type": ["object", "null"],
    "properties": {
        "method": {"enum": [*METHODS, None]},
        "target": {"type": ["integer", "string", "null"]},
        "output": {"type": ["string", "null"]},
        "baseline": {
            "anyOf": [
                {"enum": [*BASELINES, None]},
                {
                    "type": "object",
                    "properties": {"instance": {"not": {"type": "null"}}},
                    "required": ["instance"],
                    "additionalProperties": False,
                },
            ]
        },
        "max_runs": {"type": ["integer", "null"], "minimum": 2, "maximum": MAX_RUNS},
        "seed": {"type": ["integer", "null"], "minimum": 0},
        "top_k": {"type": ["integer", "null"], "minimum": 1},
        "format": {"enum": [*FORMATS, None]},
    },
}
"""What a request may say about its explanation."""


def explain_schemas(manifest: Manifest) -> dict[str, Any]:
    """Explanations beside predictions: the request is that of a prediction, and may say more."""
    name, methods = manifest.model, [*METHODS]
    if not has_gradients(manifest, manifest.default_signature):
        methods.remove("integrated_gradients")
    method = {"properties": {"method": {"enum": [*methods, None]}}}
    parameters = {"parameters": {"allOf": [{"$ref": "#/components/schemas/ExplainParameters"}, method]}}

    def more(kind: str, form: dict[str, Any]) -> dict[str, Any]:
        return {"allOf": [{"$ref": f"#/components/schemas/{name}.{kind}"}, form]}

    explanations = {"explanations": {"type": "array", "items": {"type": "object"}}}
    return {
        f"{name}.ExplainRequest": more("PredictRequest", {"required": ["instances"], "properties": parameters}),
        f"{name}.ExplainResponse": more(
            "PredictResponse", {"type": "object", "properties": explanations, "required": ["explanations"]}
        ),
        f"{name}.InferExplainRequest": more("InferRequest", {"properties": parameters}),
    }
