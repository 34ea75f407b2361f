"""What is asked in `bench warm`: the same rows as JSON, as V2 with binary tensors, and as one raw tensor.

API Gateway hands a binary body to Lambda in base64: both binary forms arrive wrapped, and decoding is the handler's.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.bench.events import http_event
from litelambda.bench.subject import Subject, make_columns, make_rows, predict_event, read_predictions
from litelambda.common.errors import BenchError
from litelambda_serving.inference_protocol.inputs import DATATYPES

_LENGTH = "inference-header-content-length"
_NUMPY = {datatype: name for name, datatype in DATATYPES.items()}


@dataclass(frozen=True)
class Case:
    """One request, and how to read its answer.

    Attributes:
        name: its key in the results.
        num_rows: how many rows it has.
        event: as the Runtime API hands it over.
        read: takes a handler's answer and the handler's name; returns the predictions, nested by output.
    """

    name: str
    num_rows: int
    event: bytes
    read: Callable[[Any, str], Any]


def make_cases(subject: Subject, row_counts: Sequence[int], prefix: str = "") -> list[Case]:
    """The cases of a model: each form with each number of rows; the raw tensor only where there is but one input."""
    cases = []
    for count in row_counts:
        name = f"{count}_row{'s' if count > 1 else ''}"
        model = subject.manifest.model
        cases.append(
            Case(
                f"{prefix}json_{name}",
                count,
                predict_event(model, make_rows(subject.inputs, count)),
                _json_reader(count),
            )
        )
        columns = make_columns(subject.inputs, count)
        tensors = [columns[spec.name].astype(spec.dtype.name) for spec in subject.inputs]
        cases.append(Case(f"{prefix}binary_{name}", count, _v2_event(model, subject, tensors), read_v2))
        if len(tensors) == 1:
            cases.append(Case(f"{prefix}raw_{name}", count, _raw_event(model, tensors[0]), read_v2))
    return cases


def _json_reader(count: int) -> Callable[[Any, str], Any]:
    return lambda answer, who: read_predictions(answer, count, who)


def _v2_event(model: str, subject: Subject, tensors: list[NDArray[Any]]) -> bytes:
    inputs = [
        {
            "name": spec.name,
            "shape": list(tensor.shape),
            "datatype": DATATYPES[spec.dtype.name],
            "parameters": {"binary_data_size": tensor.nbytes},
        }
        for spec, tensor in zip(subject.inputs, tensors, strict=True)
    ]
    document = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True, "prepared": True}}).encode()
    return _binary_event(model, len(document), document + b"".join(tensor.tobytes() for tensor in tensors))


def _raw_event(model: str, tensor: NDArray[Any]) -> bytes:
    """A length of 0 says that the body has no JSON in front: it is the tensor."""
    return _binary_event(model, 0, tensor.tobytes())


def _binary_event(model: str, length: int, body: bytes) -> bytes:
    headers = {"content-type": "application/octet-stream", _LENGTH: str(length)}
    return http_event(f"/v2/models/{model}/infer", headers, body)


def read_v2(answer: Any, who: str) -> Any:
    """Take the outputs out of an answer with binary tensors.

    Raises:
        BenchError: the answer is not a success, or not of that form.
    """
    if not isinstance(answer, dict) or answer.get("statusCode") != 200 or not answer.get("isBase64Encoded"):
        raise BenchError(f"{who} answered a binary request with {str(answer)[:500]}")
    fields = {**answer.get("headers", {}), **answer.get("multiValueHeaders", {})}
    headers = {name.lower(): value for name, value in fields.items()}
    body = base64.b64decode(answer["body"])
    length = int(headers[_LENGTH] if isinstance(headers[_LENGTH], str) else headers[_LENGTH][0])
    outputs, offset = {}, length
    for output in json.loads(body[:length])["outputs"]:
        size, datatype = output["parameters"]["binary_data_size"], output["datatype"]
        values = np.frombuffer(body[offset : offset + size], _NUMPY[datatype])
        outputs[output["name"]] = values.reshape(output["shape"]).tolist()
        offset += size
    return outputs
