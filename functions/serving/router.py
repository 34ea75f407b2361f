"""From a request to its response: which protocol speaks for a path, and what an error looks like on the wire.

Each protocol's codec but TensorFlow Serving's is imported with the first request for it: INIT pays for none of them.
"""

from __future__ import annotations

from serving import tfserving
from serving.errors import MethodNotAllowedError, RequestError, ServingError
from serving.http import Response, status_of
from serving.json_codec import dumps

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
    method = request.method
    if method == "POST" or method == "GET":  # noqa: PLR1714 - the warm path: two comparisons, no tuple
        return _answer(request, repository)
    if method == "OPTIONS":
        return Response(204, "", headers={"Allow": _allowed(request.path)}, route="options")
    if method != "HEAD":
        return _answer(request, repository)
    request.method = "GET"
    response = _answer(request, repository)
    response.body = ""
    return response


def error_response(error: Exception, request_id: str) -> Response:
    """Put an error into the protocol's form. The client reads of its own faults; ours stay in the log."""
    status = status_of(error)
    if (isinstance(error, ServingError) and status < 500) or status == 501:
        message = str(error)
    elif status == 503:
        message = f"the model's store is not available at the moment, try again (request {request_id})"
    else:
        message = f"internal error (request {request_id})"
    headers = {}
    if status == 503:
        headers["Retry-After"] = "1"
    if isinstance(error, MethodNotAllowedError):
        headers["Allow"] = error.allowed
    return Response(status, dumps({"error": message}), headers=headers, route="error")


def _answer(request: Request, repository: ModelRepository) -> Response:
    path = request.path
    if path.startswith("/v1/"):
        return tfserving.answer(request, repository)
    if path.startswith("/v2/") or path == "/v2":
        from serving import inference_protocol

        return inference_protocol.answer(request, repository)
    if path in ("/", ""):
        return _answer_probe(request, {"status": "alive"}, "live")
    if path == "/healthz":
        return _answer_probe(request, {"status": "ok", "models": repository.loaded_names()}, "health")
    if path == "/openapi.json":
        from serving import openapi

        return openapi.answer(request, repository)
    raise RequestError(f"Malformed request: {request.method} {path[:200]}")


def _answer_probe(request: Request, body: dict[str, object], name: str) -> Response:
    if request.method != "GET":
        raise RequestError(f"Malformed request: {request.method} {request.path}")
    return Response(200, dumps(body), route=name)


def _allowed(path: str) -> str:
    """The methods of a path, for OPTIONS."""
    last = path.rpartition("/")[2]
    is_post = path.startswith("/v2/repository/") or last == "infer" or (path.startswith("/v1/models/") and ":" in last)
    return "POST, OPTIONS" if is_post else "GET, HEAD, OPTIONS"
