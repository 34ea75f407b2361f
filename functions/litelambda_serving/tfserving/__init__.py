"""TensorFlow Serving's REST protocol (V1): its paths, its JSON and its errors.

Source: tensorflow/serving `http_rest_api_util.cc`, `json_tensor.cc`. KServe's V1 additions (`name` and `ready` in the
status, `GET /v1/models`) are included, since its clients ask for them.
"""

from __future__ import annotations

from time import perf_counter_ns

from litelambda_serving.errors import (
    MalformedRequestError,
    MethodNotAllowedError,
    RequestError,
    TensorError,
)
from litelambda_serving.http import (
    MAX_REFERENCE_BYTES,
    MAX_RESPONSE_BYTES,
    RAW_TYPES,
    ROUTING_KEY_HEADER,
    VERSION_HEADER,
    Response,
    check_response_bytes,
    finish,
    segments,
)
from litelambda_serving.json_codec import UnreadNumbers, dumps, loads, nest_texts, pays_native
from litelambda_serving.manifest import DEFAULT_SIGNATURE, is_valid_name
from litelambda_serving.tensor import DYNAMIC, json_text, pack, row_count

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from typing_extensions import Buffer

    from litelambda_serving.custom_code import CustomCode
    from litelambda_serving.http import Request
    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.models import ModelRepository
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.preprocessing import RawInputs
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import Tensor, TensorSpec
    from litelambda_serving.tfserving.best_classes import BestClasses

__all__ = ["answer"]

_MODELS = "/v1/models"
_VERBS = frozenset({"predict", "classify", "regress", "explain"})
_ACTIONS = {"status": "metadata", "metadata": "metadata", "explain": "explain"}
"""The right that a verb needs; all others predict."""


def answer(request: Request, repository: ModelRepository) -> Response:
    """Answer a request below `/v1`.

    Raises:
        RequestError: the client's fault, in the protocol's words.
        ServingError: a model that exists cannot be loaded or run.
    """
    if request.method == "GET" and request.path == _MODELS:
        request.allow("metadata")
        names = [name for name in repository.loaded_names() if request.may("metadata", name)]
        return Response(200, dumps({"models": names}), route="models")
    name, version, label, verb = _parse_path(request)
    request.allow(_ACTIONS.get(verb, "predict"), name)
    headers = request.headers
    servable = repository.get(name, version, label, headers.get(ROUTING_KEY_HEADER, ""))
    manifest = servable.manifest
    if verb in ("status", "metadata"):
        from litelambda_serving.tfserving import metadata

        return metadata.answer(verb, manifest)
    began = perf_counter_ns()
    if request.request_store and len(memoryview(request.body)) <= MAX_REFERENCE_BYTES:
        from litelambda_serving.references import resolve

        resolve(request)
    custom_code = repository.custom_code
    if verb == "predict":
        predicted = _predict(request, servable, custom_code, began)
        if isinstance(predicted, Response):
            return predicted
        body = predicted
    elif verb == "explain":
        body = _explain(request, servable, custom_code)
    elif custom_code is not None:
        raise custom_code.rows_alone()
    else:
        body = _score(verb, request, servable)
    timing = servable.statistics.add_request(began)
    response = Response(
        200,
        body,
        headers={VERSION_HEADER: str(manifest.version)},
        route=verb,
        model=manifest.model,
        version=manifest.version,
    )
    response.notes, response.timing = servable.notes, timing
    return finish(response, headers, request.max_response_bytes)


def _parse_path(request: Request) -> tuple[str, int | None, str, str]:
    """Read `/v1/models/{name}[/versions/{n}|/labels/{label}](:{verb}|/metadata|)` into its four parts."""
    malformed = MalformedRequestError(f"Malformed request: {request.method} {request.path[:200]}")
    if not request.path.startswith(_MODELS + "/"):
        raise malformed
    parts = segments(request.path[len(_MODELS) + 1 :])
    name, colon, verb = parts[-1].rpartition(":")
    if colon and verb in _VERBS:
        if request.method != "POST":
            raise MethodNotAllowedError(f"{request.method} is not allowed on :{verb}, use POST", "POST, OPTIONS")
        parts[-1] = name
    elif request.method != "GET" or colon:
        raise malformed
    elif len(parts) > 1 and parts[-1] == "metadata":
        verb = parts.pop()
    else:
        verb = "status"
    if not parts[0] or len(parts) not in (1, 3):
        raise malformed
    version, label = None, ""
    if len(parts) == 3 and parts[1] == "versions" and parts[2].isdecimal() and len(parts[2]) < 19:
        # Clients that mean "whichever you serve" send 0 (ovmsclient always does); real versions start at 1.
        version = int(parts[2]) or None
    elif len(parts) == 3 and parts[1] == "labels" and is_valid_name(parts[2]) and not parts[2].isdecimal():
        label = parts[2]
    elif len(parts) == 3:
        raise malformed
    return parts[0], version, label, verb


def _predict(request: Request, servable: Servable | Shadowed, code: CustomCode | None, began_ns: int) -> Any:
    """The answer's JSON, or a response to be returned as it is."""
    body, content_type = request.body, request.headers.get("content-type", "")
    if content_type.startswith(RAW_TYPES):
        from litelambda_serving.bodies.raw import holds_json

        if not holds_json(body, content_type):
            return _answer_asked(_decode_raw(request, servable, code), request, servable, began_ns)
    raw_inputs = servable.raw_inputs
    read: Callable[[bytes | bytearray], Any] = loads
    takes_arrays = code is None and (raw_inputs is None or raw_inputs.takes_arrays)
    if takes_arrays and pays_native(len(memoryview(body))):
        from litelambda_serving.native import loads_with_arrays

        read = loads_with_arrays
    return _answer_asked(_decode_json(_parse_json(body, read), servable, code), request, servable, began_ns)


class _Asked:
    """What a request asks for.

    Attributes:
        key: of the signature.
        tensors: its inputs.
        in_rows: whether the answer has the row format, not the columnar one.
        best: which classes it names; None where it has all values.
        code: the function's own postprocess; None without one.
    """

    __slots__ = ("best", "code", "in_rows", "key", "tensors")

    def __init__(
        self,
        key: str,
        tensors: dict[str, Tensor],
        in_rows: bool,
        best: BestClasses | None = None,
        code: CustomCode | None = None,
    ) -> None:
        self.key = key
        self.tensors = tensors
        self.in_rows = in_rows
        self.best = best
        self.code = code


def _decode_json(fields: Mapping[str, Any], servable: Servable | Shadowed, code: CustomCode | None) -> _Asked:
    key = _signature_key(fields, servable.manifest)
    signature = servable.manifest.signatures[key]
    row_format = "instances" in fields
    if row_format and "inputs" in fields:
        raise MalformedRequestError(
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist, got both"
        )
    if key != servable.manifest.default_signature:
        code = None  # as preprocessing, it is for the default signature
    if code is not None and not row_format:
        raise code.rows_alone()
    best = _best_classes(fields, signature, servable.manifest)
    raw_inputs = _raw_inputs(fields, key, servable)
    if row_format:
        instances = _instances(fields)
        if code is not None and fields.get("prepared") is not True:
            instances = code.prepare(instances)
        tensors = raw_inputs.from_rows(instances) if raw_inputs else _decode_rows(instances, signature)
        _check_outputs(signature, len(instances))
    elif "inputs" in fields:
        columns = fields["inputs"]
        tensors = raw_inputs.from_columns(columns) if raw_inputs else _decode_columns(columns, signature)
    else:
        raise MalformedRequestError("Missing 'inputs' or 'instances' key")
    return _Asked(key, tensors, row_format, best, code if code is not None and code.has_postprocess else None)


def _answer_asked(asked: _Asked, request: Request, servable: Servable | Shadowed, began_ns: int = 0) -> Any:
    """The answer's JSON, or a response to be returned as it is; with a time of the request's beginning alone."""
    key, best, code, limit = asked.key, asked.best, asked.code, request.max_response_bytes
    tensors = _checked(asked.tensors, servable.manifest.signatures[key], best, limit)
    if began_ns and (limit > MAX_RESPONSE_BYTES or "ndjson" in request.headers.get("accept", "")):
        from litelambda_serving.streaming.predictions import Form, predict

        form = Form(
            lambda outputs: _named(outputs, key, servable),
            lambda outputs: _row_documents(outputs, best),
            _row_texts,
            in_rows=asked.in_rows,
            obstacle="the function's own postprocess has all rows together" if code else "",
            shortened=best.output if best else "",
        )
        response = predict(request, servable, key, tensors, began_ns, form)
        if response is not None:
            return response
    outputs = _named(servable.predict(key, tensors, request.deadline), key, servable)
    if code is not None:
        return code.predictions({name: _row_texts(name, tensor, best) for name, tensor in outputs.items()})
    return _encode_rows(outputs, best) if asked.in_rows else _encode_columns(outputs, best)


def _best_classes(fields: Mapping[str, Any], signature: SignatureSpec, manifest: Manifest) -> BestClasses | None:
    """Which classes the answer names; None where it has all values, as it does unless the request asks."""
    if fields.get("top_k") is None and fields.get("threshold") is None:
        return None
    from litelambda_serving.tfserving.best_classes import BestClasses

    return BestClasses(fields, signature, manifest)


def _raw_inputs(fields: Mapping[str, Any], key: str, servable: Servable | Shadowed) -> RawInputs | None:
    """What prepares the values of a request; None where they are the model's own."""
    prepared = fields.get("prepared", False)
    if type(prepared) is not bool:
        raise MalformedRequestError("'prepared' must be true, for the model's own values, or false, for raw ones")
    return None if prepared or key != servable.manifest.default_signature else servable.raw_inputs


def _score(verb: str, request: Request, servable: Servable | Shadowed) -> str:
    """`:classify` and `:regress`."""
    from litelambda_serving.tfserving import examples

    manifest = servable.manifest
    fields = _parse_json(request.body)
    key = _signature_key(fields, manifest)
    signature = manifest.signatures[key]
    output = examples.scores_of(verb, signature, manifest)
    raw_inputs = _raw_inputs(fields, key, servable)
    tensors = _checked(examples.decode(verb, fields, signature, raw_inputs), signature)
    return examples.encode(verb, servable.predict(key, tensors, request.deadline)[output], manifest)


def _explain(request: Request, servable: Servable | Shadowed, code: CustomCode | None) -> str:
    """`:explain`, in KServe's form: explanations beside the predictions."""
    from litelambda_serving.explain import Rows, explain
    from litelambda_serving.explain.answers import explanation_texts
    from litelambda_serving.explain.options import Options

    fields = _parse_json(request.body)
    if "instances" not in fields:
        raise MalformedRequestError("Missing 'instances' key: rows are explained, one by one")
    options = Options(fields.get("parameters"))
    predicted = _answer_asked(_decode_json(fields, servable, code), request, servable)
    key = _signature_key(fields, servable.manifest)
    instances, columns = _instances(fields), None
    raw_inputs = _raw_inputs(fields, key, servable)
    if code is not None and key == servable.manifest.default_signature and fields.get("prepared") is not True:
        instances = code.prepare(instances)
        if options.instance is not None:
            (options.instance,) = code.prepare([options.instance])
    if raw_inputs is None:
        tensors = _decode_rows(instances, servable.manifest.signatures[key])
    else:
        columns = raw_inputs.columns_of(instances)
        tensors = raw_inputs.prepare(columns)
    found = explain(Rows(servable, key, tensors, columns, request.deadline), options)
    servable.statistics.extend_run()
    return f'{predicted[:-1]},"explanations":[{",".join(explanation_texts(found, options))}]}}'


def _decode_raw(request: Request, servable: Servable | Shadowed, code: CustomCode | None) -> _Asked:
    """An image or the bytes of a tensor instead of JSON; answered in the row format where the model has rows."""
    if code is not None:
        raise code.rows_alone()
    from litelambda_serving.bodies.raw import decode_raw

    key = servable.manifest.default_signature
    signature = servable.manifest.signatures[key]
    content_type = request.headers["content-type"]
    tensors = decode_raw(request.body, content_type, signature, servable.manifest, servable.raw_inputs)
    return _Asked(key, tensors, signature.rows == DYNAMIC)


def _named(outputs: dict[str, Tensor], key: str, servable: Servable | Shadowed) -> dict[str, Tensor]:
    """The outputs, with names in place of the numbers that stand for some."""
    if servable.vocabularies is None or key != servable.manifest.default_signature:
        return outputs
    from litelambda_serving.servable.vocabularies import named

    return named(outputs, servable.vocabularies)


def _checked(
    tensors: dict[str, Tensor],
    signature: SignatureSpec,
    best: BestClasses | None = None,
    max_bytes: float = MAX_RESPONSE_BYTES,
) -> dict[str, Tensor]:
    """Refuse, before anything runs, a request whose answer cannot fit a response: two characters per value at least.

    Raises:
        PayloadTooLargeError: it cannot.
    """
    values = sum(spec.row_values for spec in signature.outputs if best is None or spec.name != best.output)
    check_response_bytes(2 * values * signature.count_rows(tensors), max_bytes)
    return tensors


def _parse_json(body: Buffer, read: Callable[[bytes | bytearray], Any] = loads) -> dict[str, Any]:
    """Read a request's JSON object.

    Raises:
        MalformedRequestError: empty, not JSON, nested too deeply, or no object.
    """
    data = body if isinstance(body, (bytes, bytearray)) else bytes(body)
    if not data or data.isspace():
        raise MalformedRequestError("JSON Parse error: The document is empty")
    try:
        fields = read(data)
    except RecursionError:
        raise MalformedRequestError("JSON Parse error: the document is nested too deeply") from None
    except ValueError as error:
        raise MalformedRequestError(f"JSON Parse error: {error}") from error
    if type(fields) is not dict:
        raise MalformedRequestError("JSON Parse error: expected an object with the key 'instances' or 'inputs'")
    return fields


def _signature_key(fields: Mapping[str, Any], manifest: Manifest) -> str:
    """The signature that a request asks for.

    Raises:
        RequestError: not a string, or not one of the model's.
    """
    name = fields.get("signature_name", "")
    if type(name) is not str:
        raise MalformedRequestError("'signature_name' key must be a string value.")
    if name in manifest.signatures:
        return name
    if name in ("", DEFAULT_SIGNATURE):
        return manifest.default_signature
    raise RequestError(
        f'Serving signature name: "{name[:100]}" not found in signature def; '
        f"the model has {', '.join(manifest.signatures)}"
    )


def _instances(fields: Mapping[str, Any]) -> Any:
    instances = fields["instances"]
    if not (type(instances) is list or isinstance(instances, UnreadNumbers)) or not instances:
        raise TensorError("No values in 'instances' array: it must be a non-empty list, one entry per row")
    return instances


def _decode_rows(instances: list[Any], signature: SignatureSpec) -> dict[str, Tensor]:
    """Row format: a list with one entry per row, a bare value for the only input or an object with all of them."""
    names = [spec.name for spec in signature.inputs]
    first = instances[0] if type(instances) is list else None
    if type(first) is dict and not _is_binary(first, signature):
        for row in instances:
            if type(row) is not dict or row.keys() != set(names):
                raise TensorError(f"every instance must be an object with exactly the inputs: {', '.join(names)}")
        columns = {name: [row[name] for row in instances] for name in names}
    elif len(names) == 1:
        columns = {names[0]: instances}
    else:
        raise TensorError(f"the model has several inputs: every instance must be an object with {', '.join(names)}")
    for spec in signature.inputs:
        _check_rows(spec, len(instances))
    return {spec.name: pack(columns[spec.name], spec, spec.shape_of(len(instances))) for spec in signature.inputs}


def _check_rows(spec: TensorSpec, rows: int) -> None:
    if spec.batched or spec.shape[:1] == (rows,):
        return
    if not spec.shape:
        raise TensorError(f"input {spec.name!r} has no row for each instance: use the columnar format 'inputs'")
    raise TensorError(
        f"the model takes exactly {spec.shape[0]} instances at once, got {rows} "
        f"(input {spec.name!r} has the shape {list(spec.shape)})"
    )


def _decode_columns(inputs: Any, signature: SignatureSpec) -> dict[str, Tensor]:
    """Columnar format: a whole tensor for the only input, or an object with one per input."""
    if type(inputs) is not dict and len(signature.inputs) > 1:
        names = ", ".join(spec.name for spec in signature.inputs)
        raise TensorError(f"the model has several inputs: 'inputs' must be an object with {names}")
    named = type(inputs) is dict and not _is_binary(inputs, signature)
    columns = inputs if named else {signature.inputs[0].name: inputs}
    tensors = {}
    for spec in signature.inputs:
        if spec.name not in columns:
            raise TensorError(f"Missing named input: {spec.name} in 'inputs' object.")
        values = columns[spec.name]
        tensors[spec.name] = pack(values, spec, spec.shape_of(row_count(values) if spec.batched else 1))
    return tensors


def _is_binary(value: dict[str, Any], signature: SignatureSpec) -> bool:
    """Whether an object is a binary value, `{"b64": "…"}`, of the only input, not an object of inputs by name."""
    inputs = signature.inputs
    return len(inputs) == 1 and inputs[0].dtype.kind == "string" and len(value) == 1 and type(value.get("b64")) is str


def _check_outputs(signature: SignatureSpec, rows: int) -> None:
    """Refuse to answer in rows where an output has another number of them than the inputs have."""
    any_number = any(spec.batched for spec in signature.inputs)
    for spec in signature.outputs:
        if not spec.batched and (any_number or spec.shape[:1] != (rows,)):
            raise RequestError(f"output {spec.name!r} has no row for each instance: use the columnar format 'inputs'")


def _encode_rows(outputs: Mapping[str, Tensor], best: BestClasses | None = None) -> str:
    if len(outputs) == 1:
        return f'{{"predictions":[{_joined_rows(*next(iter(outputs.items())), best)}]}}'
    return f'{{"predictions":[{",".join(_row_documents(outputs, best))}]}}'


def _row_documents(outputs: Mapping[str, Tensor], best: BestClasses | None = None) -> list[str]:
    """The prediction of each row: a value, or an object with one for each output."""
    columns = [_row_texts(name, tensor, best) for name, tensor in outputs.items()]
    if len(columns) == 1:
        return columns[0]
    names = [dumps(name) + ":" for name in outputs]
    return [f"{{{','.join(map(str.__add__, names, row))}}}" for row in zip(*columns, strict=True)]


def _encode_columns(outputs: Mapping[str, Tensor], best: BestClasses | None = None) -> str:
    texts = {
        name: f"[{_joined_rows(name, tensor, best)}]" if tensor.shape else _joined_rows(name, tensor)
        for name, tensor in outputs.items()
    }
    if len(texts) == 1:
        return f'{{"outputs":{next(iter(texts.values()))}}}'
    named = ",".join(f"{dumps(name)}:{text}" for name, text in texts.items())
    return f'{{"outputs":{{{named}}}}}'


def _joined_rows(name: str, tensor: Tensor, best: BestClasses | None = None) -> str:
    """What a tensor holds along its first dimension, as JSON; of a scalar, its value."""
    if tensor.dtype.itemsize and (best is None or name != best.output):
        return json_text(tensor.data, tensor.dtype, tensor.shape)
    return ",".join(_row_texts(name, tensor, best))


def _row_texts(name: str, tensor: Tensor, best: BestClasses | None = None) -> list[str]:
    """What a tensor holds along its first dimension, each as JSON; of a scalar, its value."""
    if best is not None and name == best.output:
        return best.row_texts(tensor)
    if tensor.dtype.itemsize:
        return json_text(tensor.data, tensor.dtype, tensor.shape, "\n").splitlines()
    from litelambda_serving.tensor.strings import to_json

    return nest_texts([dumps(text) for text in to_json(tensor.data, name)], tensor.shape)
