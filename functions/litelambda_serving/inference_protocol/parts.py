"""V2's inferences in parts: JSON, binary tensors, or a line for each row."""

from __future__ import annotations

from litelambda_serving.errors import RequestError
from litelambda_serving.inference_protocol.inputs import DATATYPES
from litelambda_serving.inference_protocol.outputs import (
    LENGTH_HEADER,
    check_json_datatype,
    document_head,
    is_binary,
    json_values,
)
from litelambda_serving.json_codec import dumps, nest_texts
from litelambda_serving.streaming import JSON_LINES, Prediction, in_parts, is_large
from litelambda_serving.streaming.encodings import binary_columns, columns, lines
from litelambda_serving.tensor import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from litelambda_serving.http import Request, Response
    from litelambda_serving.manifest import Manifest
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable
    from litelambda_serving.tensor import Tensor

__all__ = ["infer_in_parts"]


def infer_in_parts(
    request: Request,
    servable: Servable | Shadowed,
    key: str,
    inputs: Mapping[str, Tensor],
    began_ns: int,
    fields: Mapping[str, Any],
    wanted: Mapping[str, Mapping[str, Any]],
) -> Response | None:
    """Answer a request in parts, where it asks for that or its answer may be large; None where it is to be buffered.

    Args:
        request: the request.
        servable: that answers it.
        key: of the signature.
        inputs: its tensors.
        began_ns: `time.perf_counter_ns()` of the request's beginning.
        fields: the request's JSON.
        wanted: see `wanted_outputs`.

    Raises:
        RequestError: an output cannot be sent in the form that was asked for.
    """
    manifest = servable.manifest
    signature = manifest.signatures[key]
    classifies = any(parameters.get("classification") for parameters in wanted.values())
    as_lines, may_stream = in_parts(request, signature, "classes are named for all rows together" if classifies else "")
    vocabularies = (servable.vocabularies if key == manifest.default_signature else None) or {}
    binary = {name: is_binary(name, parameters, fields) for name, parameters in wanted.items()}
    if as_lines:
        if any(binary.values()):
            raise RequestError(f"Accept: {JSON_LINES} asks for text and 'binary_data' for bytes: choose one of them")
        prediction = Prediction(request, servable, key, inputs, began_ns)
        return prediction.answer(
            lambda blocks: lines((_named(each, wanted, vocabularies) for each in blocks), _documents, _texts),
            "infer",
            JSON_LINES,
        )
    rows, is_all_binary = signature.count_rows(inputs), all(binary.values())
    unknown_sizes = any(spec.name in vocabularies or not spec.dtype.itemsize for spec in signature.outputs)
    if (
        not may_stream
        or (any(binary.values()) and (not is_all_binary or unknown_sizes))
        or not is_large(signature, rows, wanted, binary=is_all_binary)
    ):
        return None
    prediction = Prediction(request, servable, key, inputs, began_ns)
    if is_all_binary:
        head = _binary_document(fields, manifest, key, wanted, rows)
        return prediction.answer(
            lambda blocks: binary_columns(blocks, list(wanted), head),
            "infer",
            "application/octet-stream",
            {LENGTH_HEADER: str(len(head))},
        )
    for spec in signature.outputs:
        if spec.name in wanted:
            check_json_datatype(spec.name, spec.dtype)

    def opening(name: str, tensor: Tensor) -> str:
        described = {"name": name, "datatype": DATATYPES[tensor.dtype.name], "shape": (rows, *tensor.shape[1:])}
        start = f'{document_head(fields, manifest)},"outputs":[' if name == next(iter(wanted)) else "]},"
        return f'{start}{dumps(described)[:-1]},"data":['

    return prediction.answer(
        lambda blocks: columns(
            (_named(each, wanted, vocabularies) for each in blocks),
            list(wanted), opening, "]}]}", lambda name, tensor: [json_values(name, tensor)[1:-1]], flat=True,
        ),
        "infer",
    )  # fmt: skip


def _binary_document(
    fields: Mapping[str, Any], manifest: Manifest, key: str, wanted: Mapping[str, Any], rows: int
) -> bytes:
    """The JSON in front of the tensors."""
    specs = {spec.name: spec for spec in manifest.signatures[key].outputs}
    described = [
        dumps({
            "name": name,
            "datatype": DATATYPES[specs[name].dtype.name],
            "shape": specs[name].shape_of(rows),
            "parameters": {"binary_data_size": rows * specs[name].row_bytes},
        })
        for name in wanted
    ]  # fmt: skip
    return f'{document_head(fields, manifest)},"outputs":[{",".join(described)}]}}'.encode()


def _named(
    outputs: dict[str, Tensor], wanted: Mapping[str, Any], vocabularies: Mapping[str, list[str]]
) -> dict[str, Tensor]:
    """The wanted outputs, in their order, with names in place of the numbers that stand for some."""
    chosen = {name: outputs[name] for name in wanted}
    if not vocabularies:
        return chosen
    from litelambda_serving.servable.vocabularies import named

    return named(chosen, vocabularies)


def _documents(outputs: dict[str, Tensor]) -> list[str]:
    """The prediction of each row, as V1 has it: a value, or an object with one for each output."""
    found = [_texts(name, tensor) for name, tensor in outputs.items()]
    if len(found) == 1:
        return found[0]
    names = [dumps(name) + ":" for name in outputs]
    return [f"{{{','.join(map(str.__add__, names, row))}}}" for row in zip(*found, strict=True)]


def _texts(name: str, tensor: Tensor) -> list[str]:
    """The JSON of each entry of a tensor; null for NaN and infinities, as in V2's JSON."""
    if tensor.dtype.itemsize:
        text = json_text(tensor.data, tensor.dtype, tensor.shape, "\n")
        if "N" in text or "I" in text:
            text = text.replace("-Infinity", "null").replace("Infinity", "null").replace("NaN", "null")
        return text.splitlines()
    from litelambda_serving.tensor.strings import to_text

    return nest_texts([dumps(text) for text in to_text(tensor.data, name)], tensor.shape)
