"""V2's model repository extension: what the store holds, and loading and unloading it by hand.

The owner allows loading and unloading (MODEL_CONTROL). Both concern the execution environment that happens to answer.
What serves is replaced by its successor once that is ready; an unloaded model releases its memory, and the next
request for it loads it again: no caller can take a model away from others.
"""

from __future__ import annotations

from litelambda_serving import audit
from litelambda_serving.background import start_in_order
from litelambda_serving.errors import MalformedRequestError, ModelNotFoundError, ServingError, UnsupportedError
from litelambda_serving.http import Response, check_response_bytes, sent_bytes
from litelambda_serving.inference_protocol.inputs import parse_request
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.aliases import Aliases
    from litelambda_serving.http import Request
    from litelambda_serving.models import ModelRepository

__all__ = ["answer_recorded", "index", "load", "unload"]

_AT_ONCE = 64  # reads of aliases: a store of 10,000 models is listed within API Gateway's 29 seconds


def answer_recorded(call: str, request: Request, repository: ModelRepository, name: str = "") -> Response:
    """Answer a call and record it in the log, however it ends.

    Args:
        call: `index`, `load` or `unload`.
        request: what was sent.
        repository: the models.
        name: the model that is to be loaded or unloaded.

    Raises:
        ServingError: as the call does.
    """
    action = f"repository:{call}"
    actor = request.rights.caller if request.rights is not None else ""
    try:
        if call == "index":
            response = index(request, repository)
        else:
            response = (load if call == "load" else unload)(request, repository, name)
    except ServingError as error:
        outcome = "refused" if isinstance(error, UnsupportedError) else "failed"
        audit.record(action, outcome, actor=actor, model=name, reason=f"{type(error).__name__}: {error}")
        raise
    audit.record(action, "done", actor=actor, model=name, version=response.version)
    return response


def index(request: Request, repository: ModelRepository) -> Response:
    """`POST /v2/repository/index`: what aliases reach or memory holds; `{"ready": true}` for the latter.

    Raises:
        MalformedRequestError: the body is not JSON.
        StoreError: the store cannot be listed.
        PayloadTooLargeError: the list does not fit a response.
    """
    fields = parse_request(bytes(request.body)) if request.body else {}
    ready_only = fields.get("ready", False)
    if type(ready_only) is not bool:
        raise MalformedRequestError("'ready' must be true or false")
    names = repository.loaded_names() if ready_only else repository.published_names()
    names = [name for name in names if request.may("repository", name)]
    entries: list[dict[str, Any]] = []
    for name, fetch in start_in_order(repository.aliases, names, _AT_ONCE):
        try:
            entries += _entries(name, fetch.result(), repository)
        except ServingError as error:
            repository.warn(f"the index cannot describe {name}: {error}")
            entries.append({"name": name, "version": "", "state": "UNAVAILABLE", "reason": type(error).__name__})
    if ready_only:
        entries = [entry for entry in entries if entry["state"] == "READY"]
    body = dumps(entries)
    remedy = 'ask for {"ready": true} alone, or use `litelambda models`'
    check_response_bytes(sent_bytes(body), request.max_response_bytes, "models", remedy)
    return Response(200, body, route="index")


def load(request: Request, repository: ModelRepository, name: str) -> Response:
    """`POST /v2/repository/models/{m}/load`: load what the model's default alias means now.

    Raises:
        UnsupportedError: callers may not, or the body overrides the model's configuration or files.
        MalformedRequestError: the body is not JSON.
        ModelNotFoundError: no such model.
        StoreError, ArtifactError, LiteRtError: it cannot be loaded; what served before still does.
    """
    _check_allowed(repository)
    parameters = parse_request(bytes(request.body))["parameters"] if request.body else {}
    overrides = sorted(key for key in parameters if key == "config" or key.startswith("file:"))
    if overrides:
        raise UnsupportedError(
            f"failed to load '{name[:200]}': overriding {', '.join(overrides)[:200]} is not supported: "
            "publish a version"
        )
    try:
        manifest = repository.reload(name).manifest
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"failed to load '{name[:200]}': the store has no such model") from error
    return Response(200, "", route="load", model=manifest.model, version=manifest.version)


def unload(request: Request, repository: ModelRepository, name: str) -> Response:  # noqa: ARG001 - its body says nothing
    """`POST /v2/repository/models/{m}/unload`: release a model's memory.

    Raises:
        UnsupportedError: callers may not.
        ModelNotFoundError: no such model.
        StoreError, ArtifactError: the store could not deliver it again now; it still serves.
    """
    _check_allowed(repository)
    try:
        repository.aliases(name)
    except ModelNotFoundError as error:
        raise ModelNotFoundError(f"failed to unload '{name[:200]}': the store has no such model") from error
    repository.unload(name)
    return Response(200, "", route="unload", model=name)


def _check_allowed(repository: ModelRepository) -> None:
    if not repository.controllable:
        raise UnsupportedError(
            "loading and unloading models by request is off: models load with their first request. "
            "Set MODEL_CONTROL=explicit to allow it"
        )


def _entries(name: str, aliases: Aliases, repository: ModelRepository) -> list[dict[str, Any]]:
    loaded = {servable.manifest.version for servable in repository.loaded() if servable.manifest.model == name}
    reachable = {version for alias in aliases.targets for version in aliases.reachable(alias)}
    entries = []
    for version in sorted(loaded | reachable):
        entry: dict[str, Any] = {
            "name": name,
            "version": str(version),
            "state": "READY" if version in loaded else "UNAVAILABLE",
            "reason": "" if version in loaded else "not loaded: the first request for it loads it",
            "aliases": sorted(alias for alias, target in aliases.targets.items() if target == version),
        }
        canary = {alias: shares[version] for alias, shares in aliases.canaries.items() if version in shares}
        shadow = sorted(alias for alias, number in aliases.shadows.items() if number == version)
        entries.append({**entry, **({"canary": canary} if canary else {}), **({"shadow": shadow} if shadow else {})})
    return entries
