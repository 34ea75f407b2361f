"""From a request to its response: which protocol answers a path, and what an error looks like on the wire.

Every protocol except TensorFlow Serving's is imported with its first request: INIT does not pay for it.
"""

from __future__ import annotations

from litelambda_serving import tfserving
from litelambda_serving.errors import MethodNotAllowedError, RequestError, UnsupportedEncodingError
from litelambda_serving.http import Response, public_message, status_of
from litelambda_serving.json_codec import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from litelambda_serving.access import Rights
    from litelambda_serving.http import Request
    from litelambda_serving.models import ModelRepository

__all__ = ["cors_headers", "error_response", "route", "without_body"]


def route(request: Request, repository: ModelRepository, *, page: str = "") -> Response:
    """Answer a request.

    Args:
        request: the request.
        repository: the models.
        page: whether a browser gets a page at /: "on", "open" to everyone, or "".

    Raises:
        ServingError: to be turned into a response by `error_response`.
    """
    if request.rights is not None:
        return _answer_allowed(request, repository, request.rights, page=page)
    return _answer_method(request, repository, page=page)


def _answer_allowed(request: Request, repository: ModelRepository, rights: Rights, *, page: str) -> Response:
    """Refuse callers without any right, and what a route answers without having asked for one.

    OPTIONS is for everyone: a browser's preflight says nothing of its caller, and the answer nothing of a model. So is
    a page that is open.
    """
    if request.method == "OPTIONS" or (page == "open" and request.path in ("/", "")):
        return _answer_method(request, repository, page=page)
    if not rights:
        raise rights.denied()
    response = _answer_method(request, repository, page=page)
    if not rights.asked:
        raise rights.denied()
    return response


def _answer_method(request: Request, repository: ModelRepository, *, page: str) -> Response:
    method = request.method
    if method == "POST" or method == "GET":  # noqa: PLR1714 - the warm path: two comparisons, no tuple
        return _answer(request, repository, page=page)
    if method == "OPTIONS":
        return Response(204, "", headers={"Allow": _allowed(request.path)}, route="options")
    if method != "HEAD":
        return _answer(request, repository, page=page)
    request.method = "GET"
    return _answer(request, repository, page=page)


def without_body(response: Response) -> None:
    """Turn the response to a GET into the one to a HEAD: its headers, with the length, and no body."""
    response.headers = {**response.headers, "Content-Length": str(len(response.body))}
    response.body = ""


def error_response(error: Exception, request_id: str) -> Response:
    """Put an error into the protocol's form. The client learns of its own faults; ours stay in the log."""
    status, message = status_of(error), public_message(error, request_id)
    headers = {}
    if status == 503:
        headers["Retry-After"] = "1"
    if isinstance(error, MethodNotAllowedError):
        headers["Allow"] = error.allowed
    if isinstance(error, UnsupportedEncodingError):
        headers["Accept-Encoding"] = "gzip, deflate"
    return Response(status, dumps({"error": message}), headers=headers, route="error")


def cors_headers(origin: str) -> dict[str, str]:
    """Headers that let a page of `origin` ("*" for any) call from a browser and read the answer."""
    return {
        "Access-Control-Allow-Origin": origin,
        "Access-Control-Allow-Methods": "GET, HEAD, POST, OPTIONS",
        "Access-Control-Allow-Headers": "Accept, Authorization, Content-Type, Content-Encoding, "
        "Inference-Header-Content-Length, X-Amz-Content-Sha256, X-Amz-Date, X-Amz-Security-Token, X-Api-Key, "
        "X-Routing-Key",
        "Access-Control-Expose-Headers": "Inference-Header-Content-Length, X-Model-Version",
        "Access-Control-Max-Age": "3600",
        **({"Vary": "Origin"} if origin != "*" else {}),
    }


def _answer(request: Request, repository: ModelRepository, *, page: str) -> Response:
    path = request.path
    if path.startswith("/v1/"):
        return tfserving.answer(request, repository)
    if path.startswith("/v2/") or path == "/v2":
        from litelambda_serving import inference_protocol

        return inference_protocol.answer(request, repository)
    if path in ("/", ""):
        if page and request.method == "GET":
            from litelambda_serving import page as page_module

            return page_module.answer(request, is_open=page == "open")
        return _answer_probe(request, {"status": "alive"}, "live")
    if path == "/healthz":
        names = [name for name in repository.loaded_names() if request.may("metadata", name)]
        return _answer_probe(request, {"status": "ok", "models": names}, "health")
    return _answer_single(request, repository)


def _answer_single(request: Request, repository: ModelRepository) -> Response:
    """Answer a path that has no others below it."""
    path = request.path
    if path == "/openapi.json":
        from litelambda_serving import openapi

        return openapi.answer(request, repository)
    if path in ("/invocations", "/ping"):
        from litelambda_serving import hosting

        return hosting.answer(request, repository)
    raise RequestError(f"Malformed request: {request.method} {path[:200]}")


def _answer_probe(request: Request, body: dict[str, object], name: str) -> Response:
    if request.method != "GET":
        raise RequestError(f"Malformed request: {request.method} {request.path}")
    request.allow("metadata")
    return Response(200, dumps(body), route=name)


def _allowed(path: str) -> str:
    """The methods of a path, for OPTIONS."""
    last = path.rpartition("/")[2]
    has_verb = path.startswith("/v1/models/") and (":" in last or "%3a" in last.lower())
    is_post = path.startswith("/v2/repository/") or last in ("infer", "explain", "invocations") or has_verb
    return "POST, OPTIONS" if is_post else "GET, HEAD, OPTIONS"
