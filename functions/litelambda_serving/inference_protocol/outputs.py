"""The outputs of a V2 inference: which are wanted, and the model's tensors to JSON and binary tensors."""

from __future__ import annotations

from math import prod

from litelambda_serving.errors import MalformedRequestError, RequestError
from litelambda_serving.http import VERSION_HEADER, Response
from litelambda_serving.inference_protocol.inputs import DATATYPES, entries_by_name
from litelambda_serving.json_codec import dumps
from litelambda_serving.tensor import DTYPES, json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    from litelambda_serving.manifest import Manifest, SignatureSpec
    from litelambda_serving.tensor import Dtype, Tensor

__all__ = [
    "LENGTH_HEADER", "check_json_datatype", "document_head", "encode_outputs", "is_binary", "json_values",
    "wanted_outputs",
]  # fmt: skip

LENGTH_HEADER = "Inference-Header-Content-Length"
"""Length of the JSON in front of binary tensors, of requests and responses."""

_ANY_OUTPUT: Mapping[str, Any] = {}


def wanted_outputs(fields: Mapping[str, Any], signature: SignatureSpec) -> dict[str, Mapping[str, Any]]:
    """The requested outputs, or all, each with its parameters.

    Raises:
        RequestError: unknown or repeated names.
    """
    entries = entries_by_name(fields, "outputs", [spec.name for spec in signature.outputs])
    if not entries:
        return {spec.name: _ANY_OUTPUT for spec in signature.outputs}
    return {name: entry["parameters"] for name, entry in entries.items()}


def encode_outputs(
    fields: Mapping[str, Any],
    wanted: Mapping[str, Mapping[str, Any]],
    outputs: Mapping[str, Tensor],
    manifest: Manifest,
) -> Response:
    """The response of an inference.

    Args:
        fields: the request's JSON.
        wanted: see `wanted_outputs`.
        outputs: what the model gave, by name.
        manifest: of the model.

    Raises:
        RequestError: an output cannot be sent in the form that was asked for.
    """
    blocks: list[Any] = []
    described = []
    for name, parameters in wanted.items():
        binary = is_binary(name, parameters, fields)
        described.append(_encode_output(name, parameters, outputs[name], binary, manifest, blocks))
    document = f'{document_head(fields, manifest)},"outputs":[{",".join(described)}]}}'
    headers = {VERSION_HEADER: str(manifest.version)}
    if not blocks:
        return Response(200, document, headers=headers, route="infer", model=manifest.model, version=manifest.version)
    head = document.encode()
    headers[LENGTH_HEADER] = str(len(head))
    return Response(
        200,
        b"".join([head, *blocks]),
        content_type="application/octet-stream",
        headers=headers,
        route="infer",
        model=manifest.model,
        version=manifest.version,
    )


def document_head(fields: Mapping[str, Any], manifest: Manifest) -> str:
    """A response's JSON as far as its outputs."""
    body: dict[str, Any] = {"model_name": manifest.model, "model_version": str(manifest.version)}
    if "id" in fields:
        body["id"] = fields["id"]
    return dumps(body)[:-1]


def is_binary(name: str, parameters: Mapping[str, Any], fields: Mapping[str, Any]) -> bool:
    """Whether an output is asked for in binary form.

    Raises:
        MalformedRequestError: what says so is neither true nor false.
    """
    binary = parameters.get("binary_data", fields["parameters"].get("binary_data_output", False))
    if type(binary) is not bool:
        raise MalformedRequestError(f"output {name!r}: 'binary_data' and 'binary_data_output' must be true or false")
    return binary


def _encode_output(
    name: str,
    parameters: Mapping[str, Any],
    tensor: Tensor,
    binary: bool,
    manifest: Manifest,
    blocks: list[Any],
) -> str:
    """Describe one output in JSON, with its data or that appended to `blocks`."""
    if parameters.get("classification"):
        from litelambda_serving.inference_protocol.classification import classify

        shape, texts = classify(name, parameters["classification"], tensor, manifest.labels)
        described: dict[str, Any] = {"name": name, "datatype": "BYTES", "shape": shape}
        if not binary:
            return dumps({**described, "data": texts})
        data = _to_wire(map(str.encode, texts))
    else:
        described = {"name": name, "datatype": DATATYPES[tensor.dtype.name], "shape": tensor.shape}
        if not binary:
            return f'{dumps(described)[:-1]},"data":{json_values(name, tensor)}}}'
        data = bytes(tensor.data) if tensor.dtype.itemsize else _to_wire(tensor.data)
    blocks.append(data)
    return dumps({**described, "parameters": {"binary_data_size": len(data)}})


def json_values(name: str, tensor: Tensor) -> str:
    """Flat, row-major; null for NaN and infinities, for which JSON has no word."""
    if tensor.dtype.kind == "string":
        from litelambda_serving.tensor.strings import to_text

        return dumps(to_text(tensor.data, name))
    check_json_datatype(name, tensor.dtype)
    text = f"[{json_text(tensor.data, tensor.dtype, (prod(tensor.shape),))}]"
    if "N" in text or "I" in text:
        text = text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
    return text


def check_json_datatype(name: str, dtype: Dtype) -> None:
    """Refuse an output that V2 has no JSON for.

    Raises:
        RequestError: it is of half floats.
    """
    if dtype is DTYPES["float16"]:
        raise RequestError(f"output {name!r}: FP16 cannot be sent as JSON: request it with 'binary_data'")


def _to_wire(strings: Iterable[bytes]) -> bytes:
    from litelambda_serving.tensor.strings import to_wire

    return to_wire(strings)
