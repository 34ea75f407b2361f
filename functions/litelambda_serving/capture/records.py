r"""Lines of a capture: SageMaker's data capture format, JSON Lines, one object per model version and hour.

    {prefix}/{model}/{version}/2026/11/29/05/18-34-567-….jsonl

    {"captureData": {"endpointInput": {"observedContentType": "application/json", "mode": "INPUT",
                                       "data": "{\"instances\": …}", "encoding": "JSON"},
                     "endpointOutput": {…}},
     "eventMetadata": {"eventId": "…", "inferenceTime": "2026-11-29T05:18:34Z",
                       "customAttributes": ["path=/v1/models/fruit:predict"]},
     "eventVersion": "0"}

Text that is JSON has the encoding JSON, all else BASE64. `customAttributes` has what a replay needs besides the body.

Source: docs.aws.amazon.com/sagemaker/latest/dg/model-monitor-data-capture-endpoint.html.
"""

from __future__ import annotations

import os
import time
from binascii import b2a_base64

from litelambda_serving.errors import ServingError
from litelambda_serving.http import MAX_BODY_BYTES, RAW_TYPES
from litelambda_serving.json_codec import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from litelambda_serving.http import Request, Response
    from litelambda_serving.manifest import Manifest

__all__ = ["objects_of"]

_LENGTH_HEADER = "Inference-Header-Content-Length"


class _UnnamedError(Exception):
    """A payload may have a redacted value in a place that has no name."""


def objects_of(
    kept: Sequence[tuple[Request, Response, str, float]],
    redacted: frozenset[str],
    find_manifest: Callable[[str, int], Manifest | None],
    has_custom_code: bool,
) -> tuple[list[tuple[str, bytes]], int]:
    """What is written for some requests: objects by key, and how many requests could not be redacted.

    Args:
        kept: each request, its answer, Lambda's id of it, and its time.
        redacted: names whose values are left out.
        find_manifest: the manifest of a version that is loaded.
        has_custom_code: whether requests have the fields of the function's own code, which no manifest names.
    """
    lines: dict[str, list[str]] = {}
    refused = 0
    for request, response, event_id, moment in kept:
        manifest = find_manifest(response.model, response.version) if redacted else None
        names = _Names(redacted, manifest, has_custom_code)
        try:
            line = _line(request, response, names, _metadata(request, response, event_id, moment))
        except (_UnnamedError, ServingError):
            refused += 1
            continue
        folder = time.strftime(f"{response.model}/{response.version}/%Y/%m/%d/%H", time.gmtime(moment))
        lines.setdefault(folder, []).append(line)
    now = time.time()
    name = time.strftime(f"%M-%S-{int(now % 1 * 1000):03d}-{os.urandom(8).hex()}.jsonl", time.gmtime(now))
    return [(f"{folder}/{name}", ("\n".join(found) + "\n").encode()) for folder, found in lines.items()], refused


class _Names:
    """What must be left out of a model's requests and answers.

    Attributes:
        names: of fields and tensors; of a table's input too, where one of its columns is to be left out.
        in_inputs: whether an input without names may have such a value.
        in_outputs: whether an output without names may.
    """

    def __init__(self, redacted: frozenset[str], manifest: Manifest | None, has_custom_code: bool) -> None:
        self.names = set(redacted)
        self.in_inputs = self.in_outputs = bool(redacted) and (manifest is None or has_custom_code)
        if not redacted or manifest is None:
            return
        from litelambda_serving.preprocessing.describe import fields_of

        for signature in manifest.signatures.values():
            self.in_inputs |= any(spec.name in redacted for spec in signature.inputs)
            self.in_outputs |= any(spec.name in redacted for spec in signature.outputs)
        self.in_inputs |= any(field.name in redacted for field in fields_of(manifest))
        for name, document in manifest.preprocessing.items():
            columns = [column["name"] for column in document.get("columns", ())]
            if not redacted.isdisjoint([*columns, document.get("field", name)]):
                self.names.add(name)


def _metadata(request: Request, response: Response, event_id: str, moment: float) -> dict[str, Any]:
    attributes = [f"path={request.path}"]
    for headers, prefix in ((request.headers, ""), (response.headers, "response-")):
        length = headers.get(_LENGTH_HEADER.lower()) or headers.get(_LENGTH_HEADER)
        if length is not None:
            attributes.append(f"{prefix}{_LENGTH_HEADER.lower()}={length}")
    return {
        "eventId": event_id,
        "inferenceTime": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment)),
        "customAttributes": attributes,
    }


def _line(request: Request, response: Response, names: _Names, metadata: dict[str, Any]) -> str:
    data = {
        "endpointInput": {"mode": "INPUT", **_request_data(request, names)},
        "endpointOutput": {"mode": "OUTPUT", **_response_data(response, names)},
    }
    return dumps({"captureData": data, "eventMetadata": metadata, "eventVersion": "0"})


def _request_data(request: Request, names: _Names) -> dict[str, str]:
    headers, body = request.headers, bytes(request.body)
    content_type = headers.get("content-type", "")
    is_json = _LENGTH_HEADER.lower() not in headers
    if is_json and content_type.startswith(RAW_TYPES):
        from litelambda_serving.bodies.raw import holds_json

        is_json = holds_json(memoryview(body), content_type)
    return _data(body, content_type or "application/json", is_json, names.names, names.in_inputs)


def _response_data(response: Response, names: _Names) -> dict[str, str]:
    body = response.body.encode() if isinstance(response.body, str) else response.body
    encoding = response.headers.get("Content-Encoding", "")
    if encoding:
        from litelambda_serving.bodies.compression import decompress

        body = decompress(body, encoding, MAX_BODY_BYTES)
    is_json = _LENGTH_HEADER not in response.headers and response.content_type.startswith("application/json")
    return _data(body, response.content_type, is_json, names.names, names.in_outputs)


def _data(body: bytes, content_type: str, is_json: bool, names: set[str], has_unnamed: bool) -> dict[str, str]:
    """One side of a record."""
    if not is_json:
        if has_unnamed:
            raise _UnnamedError
        data, encoding = b2a_base64(body, newline=False).decode(), "BASE64"
    else:
        encoding = "JSON"
        data = (
            dumps(_redacted_document(loads(body), names, has_unnamed)) if names else body.decode("utf-8-sig", "replace")
        )
    return {"observedContentType": content_type, "data": data, "encoding": encoding}


def _redacted_document(document: Any, names: set[str], has_unnamed: bool) -> Any:
    """A request or an answer without the values of some names: null is in their place.

    Raises:
        _UnnamedError: it has values without names, which may be such.
    """
    if has_unnamed:
        for key in ("instances", "inputs", "predictions", "outputs"):
            if key in document and not _is_named(document[key]):
                raise _UnnamedError
    return _redacted(document, names)


def _is_named(value: Any) -> bool:
    """Whether all values have names: an object by name, or a list of objects; a file's content is not one."""
    rows = value if type(value) is list else [value]
    return all(type(row) is dict and row.keys() != {"b64"} for row in rows)


def _redacted(value: Any, names: set[str]) -> Any:
    if type(value) is list:
        return [_redacted(each, names) for each in value]
    if type(value) is not dict:
        return value
    found = {key: None if key in names else _redacted(each, names) for key, each in value.items()}
    if type(value.get("name")) is str and value["name"] in names and "data" in value:
        found["data"] = None  # a tensor of V2
    return found
