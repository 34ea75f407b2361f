"""From a request to its response: which protocol speaks for a path, and what an error looks like on the wire."""

from __future__ import annotations

import json

from serving import tfserving
from serving.errors import RequestError, ServingError
from serving.http import Response, status_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from serving.http import Request
    from serving.models import ModelRepository

__all__ = ["error_response", "route"]


def route(request: Request, repository: ModelRepository) -> Response:
    """Answer a request.

    Raises:
        ServingError: to be turned into a response by `error_response`.
    """
    path = request.path
    if path.startswith("/v1/"):
        return tfserving.answer(request, repository)
    if path in ("/", ""):
        return _answer_probe(request, {"status": "alive"}, "live")
    if path == "/healthz":
        return _answer_probe(request, {"status": "ok", "models": repository.loaded_names()}, "health")
    raise RequestError(f"Malformed request: {request.method} {path[:200]}")


def error_response(error: Exception, request_id: str) -> Response:
    """Put an error into the protocol's form. The client reads of its own faults; ours stay in the log."""
    status = status_of(error)
    if (isinstance(error, ServingError) and status < 500) or status == 501:
        message = str(error)
    elif status == 503:
        message = f"the model's store is not available at the moment, try again (request {request_id})"
    else:
        message = f"internal error (request {request_id})"
    headers = {"Retry-After": "1"} if status == 503 else {}
    return Response(status, json.dumps({"error": message}), headers=headers, route="error")


def _answer_probe(request: Request, body: dict[str, object], name: str) -> Response:
    if request.method not in ("GET", "HEAD"):
        raise RequestError(f"Malformed request: {request.method} {request.path}")
    return Response(200, json.dumps(body), route=name)
