"""OpenAPI 3.1 of this deployment: its routes, and for every model of the store the shapes of its manifest.

Made for each request of `/openapi.json`, and loaded with the first.
"""

from __future__ import annotations

from litelambda_serving import __version__
from litelambda_serving.background import start_in_order
from litelambda_serving.errors import MethodNotAllowedError, ServingError
from litelambda_serving.http import Response, sent_bytes
from litelambda_serving.json_codec import dumps
from litelambda_serving.openapi.schemas import COMMON_SCHEMAS, model_schemas
from litelambda_serving.tensor import DYNAMIC

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.http import Request
    from litelambda_serving.manifest import Manifest
    from litelambda_serving.models import ModelRepository

__all__ = ["answer", "document"]

MAX_MODELS = 200
"""Models beyond these are served, but not described; fewer are where the document would not fit a response."""

_AT_ONCE = 32  # fetches
_ERRORS = {"400": "The request cannot be answered as it is.", "403": "The caller lacks the right.",
           "404": "No such model or version.",
           "413": "Beyond Lambda's limit on a synchronous request or response.",
           "415": "The body has a content type or a compression that is not read.",
           "500": "A failure of this service.", "501": "Not supported.",
           "503": "The model's store is not available at the moment."}  # fmt: skip


def answer(request: Request, repository: ModelRepository) -> Response:
    """Answer `GET /openapi.json`.

    Raises:
        MethodNotAllowedError: another method.
        StoreError: the store cannot be listed.
    """
    if request.method != "GET":
        raise MethodNotAllowedError(f"{request.method} is not allowed here, use GET")
    request.allow("metadata")
    names = [name for name in repository.published_names() if request.may("metadata", name)]
    models = []
    for name, fetch in start_in_order(lambda name: _describe(repository, name), names[:MAX_MODELS], _AT_ONCE):
        try:
            models.append(fetch.result())
        except ServingError as error:
            repository.warn(f"openapi.json leaves {name} out: {error}")
    body = dumps(document(models, request.base_path))
    while (size := sent_bytes(body)) > request.max_response_bytes and models:
        models = models[: min(len(models) - 1, int(len(models) * request.max_response_bytes // size))]
        body = dumps(document(models, request.base_path))
    if len(models) < len(names):
        repository.warn(f"openapi.json describes {len(models)} of {len(names)} models")
    return Response(200, body, route="openapi")


def document(models: list[tuple[Manifest, list[str]]], base_path: str = "") -> dict[str, Any]:
    """The OpenAPI document of a service with these models, each with its aliases, below `base_path`."""
    paths = _server_paths()
    schemas = dict(COMMON_SCHEMAS)
    for manifest, aliases in models:
        paths |= _tensorflow_serving_paths(manifest, aliases)
        paths |= _inference_protocol_paths(manifest)
        schemas |= model_schemas(manifest)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "litelambda",
            "version": __version__,
            "description": "TensorFlow Serving REST (/v1) and Open Inference Protocol (/v2).",
        },
        "servers": [{"url": base_path or "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "responses": {
                status: {"description": text, "content": {"application/json": {"schema": _ref("Error")}}}
                for status, text in _ERRORS.items()
            },
        },
    }


def _describe(repository: ModelRepository, name: str) -> tuple[Manifest, list[str]]:
    return repository.manifest(name), sorted(repository.aliases(name).targets)


def _server_paths() -> dict[str, Any]:
    state = {"type": "object"}
    return {
        "/": {"get": _operation("live", "Whether the function runs", state)},
        "/healthz": {"get": _operation("health", "Whether the function runs, and what is in memory", state)},
        "/openapi.json": {"get": _operation("openapi", "This document", state)},
        "/ping": {"get": _ping()},
        "/invocations": {"post": _invocations()},
        "/v1/models": {"get": _operation("models", "Models in memory", _ref("Models"))},
        "/v2": {"get": _operation("server", "Server metadata", _ref("ServerMetadata"))},
        "/v2/health/live": {"get": _operation("v2Live", "Whether the function runs", state)},
        "/v2/health/ready": {"get": _operation("v2Ready", "Whether requests are answered", state)},
        "/v2/models/stats": {
            "get": _operation("v2AllStatistics", "What this environment has done", _ref("Statistics"))
        },
        "/v2/repository/index": {
            "post": _operation(
                "v2Index", "Models of the store", _ref("RepositoryIndex"), _ref("IndexRequest"), required=False
            )
        },
    }


def _ping() -> dict[str, Any]:
    operation = _operation("ping", "Whether the model of MODEL_NAME can be served, for SageMaker", {})
    del operation["responses"]["200"]["content"]
    return operation


def _invocations() -> dict[str, Any]:
    """SageMaker's route: what the body holds is the model's own, which `/v1` describes."""
    attributes = {"name": "X-Amzn-SageMaker-Custom-Attributes", "in": "header", "schema": {"type": "string"}}
    operation = _operation("invocations", "Predict with the model of MODEL_NAME, for SageMaker", {"type": "object"},
                           {"type": ["object", "array"]}, raw=True, parameters=[attributes])  # fmt: skip
    for kind in ("text/csv", "application/jsonlines"):
        operation["requestBody"]["content"][kind] = {}
        operation["responses"]["200"]["content"][kind] = {"schema": {"type": "string"}}
    return operation


def _tensorflow_serving_paths(manifest: Manifest, aliases: list[str]) -> dict[str, Any]:
    name = manifest.model
    paths = {}
    for suffix, parameter in (
        ("", None),
        ("/versions/{version}", {"type": "integer", "minimum": 0, "maximum": 999999999}),
        ("/labels/{label}", {"enum": aliases}),
    ):
        key = suffix[1:].partition("/")[0]
        parameters = [] if parameter is None else [_path_parameter(suffix, parameter)]
        base = f"/v1/models/{name}{suffix}"
        paths[base] = {"get": _operation(f"{name}.status.{key}", "Status", _ref("Status"), parameters=parameters)}
        paths[f"{base}/metadata"] = {
            "get": _operation(f"{name}.metadata.{key}", "Signatures", {"type": "object"}, parameters=parameters)
        }
        paths[f"{base}:predict"] = {
            "post": _with_lines(_operation(
                f"{name}.predict.{key}", "Predict", _ref(f"{name}.PredictResponse"), _ref(f"{name}.PredictRequest"),
                parameters=parameters, raw=_takes_raw(manifest),
            ))
        }  # fmt: skip
        if manifest.signatures[manifest.default_signature].rows in (DYNAMIC, 1):
            paths[f"{base}:explain"] = {
                "post": _operation(
                    f"{name}.explain.{key}", "Explain", _ref(f"{name}.ExplainResponse"), _ref(f"{name}.ExplainRequest"),
                    parameters=parameters,
                )
            }  # fmt: skip
    return paths


def _takes_raw(manifest: Manifest) -> bool:
    """Whether a body may be a tensor itself."""
    inputs = manifest.signatures[manifest.default_signature].inputs
    return len(inputs) == 1 and inputs[0].dtype.kind != "string"


def _inference_protocol_paths(manifest: Manifest) -> dict[str, Any]:
    name = manifest.model
    base = f"/v2/models/{name}"
    return {
        base: {"get": _operation(f"{name}.v2Metadata", "Inputs and outputs", _ref("ModelMetadata"))},
        f"{base}/ready": {"get": _operation(f"{name}.v2Ready", "Whether it answers", _ref("Ready"))},
        f"{base}/config": {"get": _operation(f"{name}.v2Config", "Model configuration", {"type": "object"})},
        f"{base}/stats": {"get": _operation(f"{name}.v2Statistics", "What it has done", _ref("Statistics"))},
        f"{base}/infer": {
            "post": _with_lines(
                _operation(f"{name}.v2Infer", "Infer", _ref(f"{name}.InferResponse"), _ref(f"{name}.InferRequest"))
            )
        },
        f"{base}/explain": {
            "post": _operation(f"{name}.v2Explain", "Explain", {"type": "object"}, _ref(f"{name}.InferExplainRequest"))
        },
    }


def _operation(
    identifier: str,
    summary: str,
    answer_schema: dict[str, Any],
    body: dict[str, Any] | None = None,
    *,
    required: bool = True,
    raw: bool = False,
    parameters: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": identifier.rstrip("."),
        "summary": summary,
        "responses": {
            "200": {"description": "Done", "content": {"application/json": {"schema": answer_schema}}},
            **{status: {"$ref": f"#/components/responses/{status}"} for status in _ERRORS},
        },
    }
    if parameters:
        operation["parameters"] = parameters
    if body is not None:
        content: dict[str, Any] = {"application/json": {"schema": body}}
        if raw:
            content |= {kind: {} for kind in ("application/octet-stream", "application/x-npy")}
        operation["requestBody"] = {"required": required, "content": content}
    return operation


def _with_lines(operation: dict[str, Any]) -> dict[str, Any]:
    """An operation that also answers with JSON Lines."""
    text = {"type": "string", "description": "A line for each row, with its prediction."}
    operation["responses"]["200"]["content"]["application/x-ndjson"] = {"schema": text}
    return operation


def _path_parameter(suffix: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": suffix.rpartition("{")[2].rstrip("}"), "in": "path", "required": True, "schema": schema}


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": f"#/components/schemas/{name}"}
