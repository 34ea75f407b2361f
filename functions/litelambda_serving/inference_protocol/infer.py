"""V2 inference, `POST /v2/models/{m}/infer`: JSON, JSON followed by binary tensors, or one raw tensor."""

from __future__ import annotations

from time import perf_counter_ns

from litelambda_serving.bodies.raw import decode_raw, holds_json
from litelambda_serving.errors import MalformedRequestError, RequestError
from litelambda_serving.http import MAX_RESPONSE_BYTES, RAW_TYPES, Response, check_response_bytes, finish
from litelambda_serving.inference_protocol.inputs import decode_inputs, parse_request
from litelambda_serving.inference_protocol.outputs import LENGTH_HEADER, encode_outputs, wanted_outputs
from litelambda_serving.json_codec import loads, pays_native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from litelambda_serving.http import Request
    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import Tensor

__all__ = ["infer", "raw_tensors", "signature_key", "split_body"]

_LENGTH_HEADER = LENGTH_HEADER.lower()
_MAX_LENGTH_DIGITS = 9


def infer(request: Request, servable: Servable | Shadowed) -> Response:
    """Answer `POST …/infer`.

    Raises:
        RequestError: the client's fault, named with the tensor it is about.
        LiteRtError: the runtime failed.
    """
    began = perf_counter_ns()
    manifest = servable.manifest
    key = manifest.default_signature
    document, binary = split_body(request)
    if document is None:
        fields: dict[str, Any] = {"parameters": {"binary_data_output": _LENGTH_HEADER in request.headers}}
        signature = manifest.signatures[key]
        tensors = raw_tensors(request, binary, servable)
    else:
        read: Callable[[bytes | bytearray], Any] = loads
        if pays_native(len(document)):
            from litelambda_serving.native import loads_with_arrays

            read = loads_with_arrays
        fields = parse_request(document, read)
        key = signature_key(fields, manifest)
        signature = manifest.signatures[key]
        tensors = _decode(fields, binary, key, servable)
    wanted = wanted_outputs(fields, signature)
    _check_answer(tensors, signature, wanted, request.max_response_bytes)
    if request.max_response_bytes > MAX_RESPONSE_BYTES or "ndjson" in request.headers.get("accept", ""):
        from litelambda_serving.inference_protocol.parts import infer_in_parts

        in_parts = infer_in_parts(request, servable, key, tensors, began, fields, wanted)
        if in_parts is not None:
            return in_parts
    outputs = servable.predict(key, tensors, request.deadline)
    if servable.vocabularies and key == manifest.default_signature:
        from litelambda_serving.servable.vocabularies import named

        outputs = named(outputs, servable.vocabularies)
    response = encode_outputs(fields, wanted, outputs, manifest)
    response.timing = servable.statistics.add_request(began)
    response.notes = servable.notes
    return finish(response, request.headers, request.max_response_bytes)


def _decode(fields: dict[str, Any], binary: memoryview, key: str, servable: Servable | Shadowed) -> dict[str, Tensor]:
    """The model's inputs, prepared where the request has raw values for them."""
    signature = servable.manifest.signatures[key]
    if servable.raw_inputs is not None and key == servable.manifest.default_signature:
        from litelambda_serving.inference_protocol.raw_inputs import are_prepared, decode_raw_inputs

        if not are_prepared(fields, servable.raw_inputs):
            return decode_raw_inputs(fields, binary, servable.raw_inputs)
    return decode_inputs(fields, binary, signature)


def split_body(request: Request) -> tuple[bytes | None, memoryview]:
    """The JSON and the binary part of a body; None for the JSON when all of it is one tensor."""
    view = memoryview(request.body)
    text = request.headers.get(_LENGTH_HEADER)
    if text is None:
        content_type = request.headers.get("content-type", "")
        if content_type.startswith(RAW_TYPES) and not holds_json(view, content_type):
            return None, view
        return bytes(view), view[:0]
    text = text.strip()
    length = int(text) if text.isdecimal() and len(text) <= _MAX_LENGTH_DIGITS else -1
    if not 0 <= length <= len(view):
        raise MalformedRequestError(
            f"{LENGTH_HEADER} is {text[:20]!r}: expected the JSON's length in bytes, at most the body's {len(view)}"
        )
    return (bytes(view[:length]), view[length:]) if length else (None, view)


def raw_tensors(request: Request, binary: memoryview, servable: Servable | Shadowed) -> dict[str, Tensor]:
    """The inputs of a body that is one raw tensor.

    Raises:
        RequestError: it does not fit the model.
    """
    # With a header length of 0 the body is the tensor's bytes, for any content type.
    is_bytes = _LENGTH_HEADER in request.headers
    content_type = "application/octet-stream" if is_bytes else request.headers["content-type"]
    manifest = servable.manifest
    signature = manifest.signatures[manifest.default_signature]
    return decode_raw(binary, content_type, signature, manifest, servable.raw_inputs)


def signature_key(fields: Mapping[str, Any], manifest: Manifest) -> str:
    """The default signature, unless the parameter `signature_name` says another."""
    name = fields["parameters"].get("signature_name", manifest.default_signature)
    if type(name) is not str or name not in manifest.signatures:
        raise RequestError(f"parameter 'signature_name' must be one of {', '.join(manifest.signatures)}")
    return name


def _check_answer(
    tensors: Mapping[str, Tensor],
    signature: SignatureSpec,
    wanted: Mapping[str, Mapping[str, Any]],
    max_bytes: float,
) -> None:
    """Refuse, before anything runs, a request whose answer cannot fit a response: a byte or two per value at least."""
    check_response_bytes(
        signature.count_rows(tensors)
        * sum(
            min(2 * spec.row_values, spec.row_bytes or 2 * spec.row_values)
            for spec in signature.outputs
            if spec.name in wanted and "classification" not in wanted[spec.name]
        ),
        max_bytes,
    )
