"""V2 explanations, `POST /v2/models/{m}/explain`: an inference whose answer has one more output, `explanation`.

The protocol names no such route. As in MLServer, an explanation is JSON in an output of datatype BYTES; it has one for
each row. The request is that of an inference, and its `parameters` are also those of the explanation.
"""

from __future__ import annotations

from time import perf_counter_ns

from litelambda_serving.explain import Rows
from litelambda_serving.explain import explain as explain_rows
from litelambda_serving.explain.answers import explanation_texts
from litelambda_serving.explain.options import Options
from litelambda_serving.http import finish
from litelambda_serving.inference_protocol.infer import raw_tensors, signature_key, split_body
from litelambda_serving.inference_protocol.inputs import decode_inputs, parse_request
from litelambda_serving.inference_protocol.outputs import LENGTH_HEADER, encode_outputs, wanted_outputs
from litelambda_serving.manifest import SignatureSpec
from litelambda_serving.tensor import DTYPES, DYNAMIC, Tensor, TensorSpec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from litelambda_serving.http import Request, Response
    from litelambda_serving.models.shadow import Shadowed
    from litelambda_serving.servable import Servable

__all__ = ["explain"]

_OUTPUT = TensorSpec("explanation", DTYPES["string"], (DYNAMIC,))
_PROTOCOL = ("binary_data_output", "prepared", "signature_name")


def explain(request: Request, servable: Servable | Shadowed) -> Response:
    """Answer `POST …/explain`.

    Raises:
        RequestError: the client's fault.
        LiteRtError: the runtime failed.
    """
    began = perf_counter_ns()
    manifest = servable.manifest
    fields, key, tensors, columns = _decode(request, servable)
    signature = manifest.signatures[key]
    wanted = wanted_outputs(fields, SignatureSpec(signature.inputs, (*signature.outputs, _OUTPUT)))
    options = Options(fields["parameters"], _PROTOCOL)
    outputs = servable.predict(key, tensors, request.deadline)
    if servable.vocabularies and key == manifest.default_signature:
        from litelambda_serving.servable.vocabularies import named

        outputs = named(outputs, servable.vocabularies)
    explanations = explain_rows(Rows(servable, key, tensors, columns, request.deadline), options)
    servable.statistics.extend_run()
    texts = [text.encode() for text in explanation_texts(explanations, options)]
    outputs[_OUTPUT.name] = Tensor(_OUTPUT.dtype, (len(texts),), texts)
    response = encode_outputs(fields, wanted, outputs, manifest)
    servable.statistics.add_request(began)
    response.notes, response.route = servable.notes, "explain"
    return finish(response, request.headers, request.max_response_bytes)


def _decode(request: Request, servable: Servable | Shadowed) -> tuple[dict[str, Any], str, Any, Any]:
    """The request's fields, its signature, its rows as the model reads them, and their raw values by field."""
    document, binary = split_body(request)
    raw_inputs = servable.raw_inputs
    if document is None:
        binary_out = LENGTH_HEADER.lower() in request.headers
        columns: Any = None if raw_inputs is None else {}
        fields: dict[str, Any] = {"parameters": {"binary_data_output": binary_out}}
        return fields, servable.manifest.default_signature, raw_tensors(request, binary, servable), columns
    fields = parse_request(document)
    key = signature_key(fields, servable.manifest)
    if raw_inputs is not None and key == servable.manifest.default_signature:
        from litelambda_serving.inference_protocol.raw_inputs import are_prepared, decode_columns

        if not are_prepared(fields, raw_inputs):
            columns, arrays = decode_columns(fields, binary, raw_inputs)
            return fields, key, raw_inputs.prepare(columns, arrays), columns
    return fields, key, decode_inputs(fields, binary, servable.manifest.signatures[key]), None
