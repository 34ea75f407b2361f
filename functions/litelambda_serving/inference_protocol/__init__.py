"""The Open Inference Protocol (V2) over REST: its paths. Imported with the first request below `/v2`.

Source: kserve/open-inference-protocol `specification/protocol/inference_rest.md`, and the extensions of
triton-inference-server `docs/protocol/`: binary tensor data, classification, model configuration, statistics, model
repository.
"""

from __future__ import annotations

from litelambda_serving.errors import (
    MalformedRequestError,
    MethodNotAllowedError,
    ModelNotFoundError,
    RequestError,
    ServingError,
    UnsupportedError,
)
from litelambda_serving.http import MAX_REFERENCE_BYTES, ROUTING_KEY_HEADER, Response, segments, status_of
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from litelambda_serving.http import Request
    from litelambda_serving.models import ModelRepository
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable

__all__ = ["answer"]

_READ, _WRITE = "GET, HEAD, OPTIONS", "POST, OPTIONS"
_RESERVED = ("generate", "generate_stream")
_ACTIONS = {"infer": "predict", "explain": "explain", "generate": "predict", "generate_stream": "predict"}
"""The right that a verb needs; all others read metadata."""
_NO_SHARED_MEMORY = "shared memory is not supported: send the tensors in the request"
_NO_TRACE = "trace settings are the stack's: deploy with Tracing=Active"
_UNSUPPORTED = {
    "systemsharedmemory": _NO_SHARED_MEMORY,
    "cudasharedmemory": _NO_SHARED_MEMORY,
    "trace": _NO_TRACE,
    "logging": "log settings are the function's: set LOG_LEVEL",
}
"""Triton's extensions that a function has no use for, and what to do instead."""


def answer(request: Request, repository: ModelRepository) -> Response:
    """Answer a request for `/v2` or below.

    Raises:
        RequestError: the client's fault.
        ServingError: a model that exists cannot be loaded or run.
    """
    parts = segments(request.path.rstrip("/"))[2:]
    if not parts:
        _allow(request, "GET")
        request.allow("metadata")
        from litelambda_serving.inference_protocol.describe import server_metadata

        return Response(200, dumps(server_metadata()), route="server")
    if parts[0] == "health":
        return _answer_health(request, parts)
    if parts[0] == "repository":
        return _answer_repository(request, parts, repository)
    if parts[0] in _UNSUPPORTED or parts[-2:] == ["trace", "setting"]:
        request.allow("admin")
        raise UnsupportedError(f"/v2/{parts[0][:40]}: {_UNSUPPORTED.get(parts[0], _NO_TRACE)}")
    if parts == ["models", "stats"]:
        return _answer_statistics(request, repository, None)
    name, version, verb = _parse_model_path(request, parts)
    request.allow(_ACTIONS.get(verb, "metadata"), name)
    if verb in _RESERVED:
        raise UnsupportedError(f"/{verb} is not supported: use /infer")
    return _answer_model(request, repository, (name, version), verb)


def _answer_model(request: Request, repository: ModelRepository, target: tuple[str, str], verb: str) -> Response:
    if verb in ("infer", "explain"):
        _allow(request, "POST")
        if repository.custom_code is not None:
            raise repository.custom_code.rows_alone(verb)
        servable = _find(request, repository, target)
        if request.request_store and len(memoryview(request.body)) <= MAX_REFERENCE_BYTES:
            from litelambda_serving.references import resolve

            resolve(request)
        if verb == "explain":
            from litelambda_serving.inference_protocol.explain import explain

            return explain(request, servable)
        from litelambda_serving.inference_protocol.infer import infer

        return infer(request, servable)
    if verb == "ready":
        return _answer_ready(request, repository, target)
    _allow(request, "GET")
    servable = _find(request, repository, target)
    if verb == "stats":
        return _answer_statistics(request, repository, servable)
    from litelambda_serving.inference_protocol import describe as module

    describe = module.model_metadata if verb == "metadata" else module.model_config
    manifest = servable.manifest
    body = dumps(describe(manifest, repository))
    return Response(200, body, route=verb, model=manifest.model, version=manifest.version)


def _find(request: Request, repository: ModelRepository, target: tuple[str, str]) -> Servable | Shadowed:
    name, version = target
    key = request.headers.get(ROUTING_KEY_HEADER, "")
    try:
        if version.isdecimal():
            # A number with too many digits is not a version.
            return repository.get(name, int(version[:19]), "", key)
        return repository.get(name, None, version, key)
    except UnsupportedError:  # of a model that this package lacks something for
        raise
    except RequestError as error:  # an unknown alias in a version's place is a missing version too
        asked = f"'{name[:200]}'" + (f" version {version[:40]}" if version else "")
        raise ModelNotFoundError(f"Request for unknown model: {asked} is not found") from error


def _parse_model_path(request: Request, parts: list[str]) -> tuple[str, str, str]:
    """Read `models/{m}[/versions/{v}][/{verb}]` into name, version and verb."""
    malformed = MalformedRequestError(f"Malformed request: {request.method} {request.path[:200]}")
    if len(parts) < 2 or parts[0] != "models" or not parts[1]:
        raise malformed
    rest, version = parts[2:], ""
    if len(rest) >= 2 and rest[0] == "versions":
        version, rest = rest[1], rest[2:]
        if not version:
            raise malformed
    verb = "/".join(rest) or "metadata"
    if verb not in ("metadata", "ready", "infer", "explain", "config", "stats", *_RESERVED):
        raise malformed
    return parts[1], version, verb


def _answer_health(request: Request, parts: list[str]) -> Response:
    bodies = {"live": {"live": True}, "ready": {"ready": True, "live": True}}
    if len(parts) != 2 or parts[1] not in bodies:
        raise MalformedRequestError(f"Malformed request: {request.method} {request.path[:200]}")
    _allow(request, "GET")
    request.allow("metadata")
    return Response(200, dumps(bodies[parts[1]]), route=parts[1])


def _answer_ready(request: Request, repository: ModelRepository, target: tuple[str, str]) -> Response:
    """Ready means that the next request will be answered: a model that is not loaded yet is loaded for it."""
    _allow(request, "GET")
    try:
        manifest = _find(request, repository, target).manifest
    except ServingError as error:
        if status_of(error) < 500:
            raise
        repository.warn(f"model {target[0]} is not ready: {error}")
        return Response(503, dumps({"name": target[0], "ready": False, "error": "the model cannot be loaded"}))
    body = dumps({"name": manifest.model, "ready": True})
    return Response(200, body, route="ready", model=manifest.model, version=manifest.version)


def _answer_repository(request: Request, parts: list[str], repository: ModelRepository) -> Response:
    from litelambda_serving.inference_protocol.repository import answer_recorded

    if parts == ["repository", "index"]:
        _allow(request, "POST")
        request.allow("repository")
        return answer_recorded("index", request, repository)
    if len(parts) == 4 and parts[1] == "models" and parts[3] in ("load", "unload"):
        _allow(request, "POST")
        request.allow("repository", parts[2])
        return answer_recorded(parts[3], request, repository, parts[2])
    raise MalformedRequestError(f"Malformed request: {request.method} {request.path[:200]}")


def _answer_statistics(request: Request, repository: ModelRepository, servable: Servable | Shadowed | None) -> Response:
    _allow(request, "GET")
    from litelambda_serving.inference_protocol.describe import statistics

    if servable is None:
        request.allow("metadata")
    servables = [each for each in repository.loaded() if request.may("metadata", each.manifest.model)]
    return Response(200, dumps(statistics(servables, servable)), route="stats")


def _allow(request: Request, method: str) -> None:
    if request.method != method:
        allowed = _READ if method == "GET" else _WRITE
        raise MethodNotAllowedError(f"{request.method} is not allowed here, use {allowed}", allowed)
