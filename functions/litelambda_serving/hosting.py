"""What hosting platforms ask of a container: `GET /ping` and `POST /invocations`, in SageMaker's form.

Vertex AI has the same two under names of its own (AIP_HEALTH_ROUTE, AIP_PREDICT_ROUTE, see
`litelambda_serving.asgi`) and puts options beside the rows, into `parameters`. A request becomes one of TensorFlow
Serving's protocol, so that rights, limits and answers are those of `/v1`.

Source: aws/sagemaker-tensorflow-serving-container (`tensorflowServing.js`), Vertex AI's "Custom container requirements
for prediction". Imported with the first such request.
"""

from __future__ import annotations

from litelambda_serving import tfserving
from litelambda_serving.errors import (
    MalformedRequestError,
    MethodNotAllowedError,
    ModelNotFoundError,
    RequestError,
    UnsupportedMediaTypeError,
)
from litelambda_serving.http import MAX_RESPONSE_BYTES, RAW_TYPES, ROUTING_KEY_HEADER, Response, finish
from litelambda_serving.json_codec import dumps, loads
from litelambda_serving.manifest import is_valid_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litelambda_serving.http import Request
    from litelambda_serving.models import ModelRepository

__all__ = ["answer"]

_ATTRIBUTES_HEADER = "x-amzn-sagemaker-custom-attributes"
_METHODS = ("predict", "classify", "regress", "explain")
_LINES = ("application/jsonlines", "application/x-jsonlines", "application/x-ndjson")
_TYPES = "application/json, application/jsonlines, text/csv, application/x-npy, application/octet-stream or image/*"
_V1_KEYS = (b'"instances"', b'"inputs"', b'"examples"', b'"s3"')
_PARAMETERS = frozenset({"signature_name", "prepared", "top_k", "threshold"})


def answer(request: Request, repository: ModelRepository) -> Response:
    """Answer `/ping` or `/invocations`.

    Raises:
        RequestError: the client's fault.
        ServingError: the model exists, but cannot be loaded or run.
    """
    if request.path == "/ping":
        return _ping(request, repository)
    if request.method != "POST":
        raise MethodNotAllowedError(f"{request.method} is not allowed on {request.path}, use POST", "POST, OPTIONS")
    name, version, method = _target(request, repository)
    headers = dict(request.headers)
    kind = headers.get("content-type", "application/json").partition(";")[0].strip()
    accepted = _accepted(headers.get("accept", ""), kind)
    if not kind.startswith(RAW_TYPES):
        request.allow("explain" if method == "explain" else "predict", name)
        request.body = _document(request, kind, repository, name, version, method)
        headers["content-type"] = "application/json"
    request.path = f"/v1/models/{name}{f'/versions/{version}' if version else ''}:{method}"
    request.headers = headers
    if accepted == "text/csv":
        return _answer_csv(request, repository)
    headers["accept"] = "application/x-ndjson" if accepted else "application/json"
    response = tfserving.answer(request, repository)
    if accepted and response.content_type == "application/x-ndjson":
        response.content_type = accepted
    return response


def _ping(request: Request, repository: ModelRepository) -> Response:
    """200 as soon as the function's own model can be served; without one, as soon as there is a server."""
    if request.method != "GET":
        raise MethodNotAllowedError(f"{request.method} is not allowed on {request.path}, use GET")
    request.allow("metadata", repository.default_name)
    if repository.default_name:
        repository.get(repository.default_name)
    return Response(200, "", route="ping")


def _target(request: Request, repository: ModelRepository) -> tuple[str, int, str]:
    """The model, its version (0 for the default one) and the method that SageMaker's custom attributes ask for.

    Raises:
        RequestError: they are impossible.
        ModelNotFoundError: they name no model, and neither does the function.
    """
    pairs = (each.partition("=") for each in request.headers.get(_ATTRIBUTES_HEADER, "").split(","))
    asked = {key.strip(): value.strip() for key, _, value in pairs}
    name = asked.get("tfs-model-name") or repository.default_name
    if not name:
        raise ModelNotFoundError(
            "no model: set MODEL_NAME, or send X-Amzn-SageMaker-Custom-Attributes: tfs-model-name=NAME"
        )
    if not is_valid_name(name):
        raise ModelNotFoundError(f"tfs-model-name is {name[:100]!r}, which is not a name of a model")
    version = asked.get("tfs-model-version", "0")
    if not version.isdecimal() or len(version) > 18:
        raise RequestError(f"tfs-model-version is {version[:100]!r}, expected a number")
    method = asked.get("tfs-method", "predict")
    if method not in _METHODS:
        raise RequestError(f"tfs-method is {method[:100]!r}, expected one of {', '.join(_METHODS)}")
    return name, int(version), method


def _accepted(accept: str, kind: str) -> str:
    """The first of the answer's types that is not JSON's own, "" for that; lines are answered with lines."""
    for each in accept.lower().split(","):
        media_type = each.partition(";")[0].strip()
        if media_type == "application/json":
            return ""
        if media_type == "text/csv" or media_type in _LINES:
            return media_type
    return kind if kind in _LINES else ""


def _document(
    request: Request, kind: str, repository: ModelRepository, name: str, version: int, method: str
) -> bytes | bytearray:
    """The body in TensorFlow Serving's form.

    Raises:
        UnsupportedMediaTypeError: its type is none of those that are read.
        RequestError: the body is not what its type says.
    """
    body = request.body if isinstance(request.body, (bytes, bytearray)) else bytes(request.body)
    if kind in ("application/json", "application/jsons", ""):
        return _json_document(body, method)
    if kind in _LINES:
        return b'{"instances":[%s]}' % b",".join(_checked_lines(body))
    if kind != "text/csv":
        raise UnsupportedMediaTypeError(f"content type {kind[:100]!r} is not read here, expected {_TYPES}")
    from litelambda_serving.bodies.csv_rows import read_instances

    servable = repository.get(name, version or None, "", request.headers.get(ROUTING_KEY_HEADER, ""))
    instances = read_instances(body, servable.manifest, servable.raw_inputs, as_they_are=bool(repository.custom_code))
    return dumps({"instances": instances}).encode()


def _json_document(body: bytes | bytearray, method: str) -> bytes | bytearray:
    """JSON as TensorFlow Serving takes it; as its container, also a list of rows, or one row."""
    start = body.lstrip()[:1]
    if start == b"[":
        second = body.lstrip()[1:].lstrip()[:1]
        return b'{"instances":%s}' % (body if second in (b"[", b"{") else b"[%s]" % body)
    if start == b"{" and not any(key in body for key in _V1_KEYS):
        return b'{"instances":[%s]}' % body
    return _with_parameters(body) if method == "predict" and b'"parameters"' in body else body


def _with_parameters(body: bytes | bytearray) -> bytes | bytearray:
    """A body with Vertex AI's `parameters`, which are the options of a prediction, beside its rows."""
    try:
        fields = loads(body)
    except (ValueError, RecursionError):
        return body  # what is wrong is said where it is read
    if type(fields) is not dict or "parameters" not in fields:
        return body
    parameters = fields.pop("parameters")
    if parameters is not None and type(parameters) is not dict:
        raise MalformedRequestError("'parameters' must be an object, or null")
    if unknown := (parameters or {}).keys() - _PARAMETERS:
        raise MalformedRequestError(
            f"'parameters' has {', '.join(map(repr, sorted(unknown)))[:200]}, expected some of "
            f"{', '.join(sorted(_PARAMETERS))}"
        )
    return dumps({**fields, **(parameters or {})}).encode()


def _checked_lines(body: bytes | bytearray) -> list[bytes]:
    lines = []
    for number, line in enumerate(bytes(body).splitlines(), 1):
        if not line.strip():
            continue
        try:
            loads(line)
        except (ValueError, RecursionError) as error:
            raise MalformedRequestError(f"line {number} is not a JSON value: {error}") from None
        lines.append(line)
    return lines


def _answer_csv(request: Request, repository: ModelRepository) -> Response:
    """A line for each prediction, its values separated by commas; what has no rows stays JSON."""
    outer: Mapping[str, str] = request.headers
    limit, request.max_response_bytes = request.max_response_bytes, MAX_RESPONSE_BYTES
    request.headers = {key: value for key, value in outer.items() if key not in ("accept", "accept-encoding")}
    response = tfserving.answer(request, repository)
    document: Any = loads(response.body.encode() if isinstance(response.body, str) else response.body)
    if "predictions" in document and "explanations" not in document:
        from litelambda_serving.bodies.csv_rows import write_rows

        response.body, response.content_type = write_rows(document["predictions"]), "text/csv"
    return finish(response, outer, limit)
