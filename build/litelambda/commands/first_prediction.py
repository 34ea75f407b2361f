"""The first prediction of what was deployed, through its real URL, and such a request as a curl command."""

from __future__ import annotations

import json
import math
import time
from typing import Any

from litelambda.client import Client, ServiceError
from litelambda.stacks.access import curl
from litelambda.stacks.stack import Stack
from litelambda.store.copies import Version
from litelambda_serving.inference_protocol.inputs import DATATYPES

__all__ = ["infer_request", "predict_once", "predict_request"]

_WAIT_SECONDS, _PAUSE_SECONDS = 60.0, 3.0
_NOT_YET = {0, 403, 404, 429, 500, 502, 503, 504}
"""What a new API may answer until every part of it is there."""

_MAX_SHOWN = 600
"""Characters of a request or an answer that are shown."""


def predict_once(stack: Stack, version: Version) -> None:
    """Ask a deployed model for one prediction, and say how to ask it.

    Raises:
        ServiceError: it does not answer, or refuses.
    """
    url = f"{stack.api_url}/v1/models/{version.model}:predict"
    if stack.parameters.get("Authorization") == "JWT":
        print(f"deploy: {url} wants a token", flush=True)
    else:
        began = time.monotonic()
        answer = json.dumps(_ask(Client(stack=stack.name), version.model, predict_request(version.fields)))
        shown = answer if len(answer) <= _MAX_SHOWN else f"{answer[:_MAX_SHOWN]}…"
        print(f"deploy: {url} answered in {(time.monotonic() - began) * 1000:.0f} ms: {shown}", flush=True)
    # Of V2, whose paths have no colon: curl 7.88, for one, signs one otherwise than AWS does.
    body, path = json.dumps(infer_request(version.fields)), f"/v2/models/{version.model}"
    command = curl(stack, f"{path}/infer", body) if len(body) <= _MAX_SHOWN else curl(stack, path)
    print(f"deploy: ask it with\n\n  {command}\n", flush=True)


def _ask(client: Client, model: str, body: dict[str, Any]) -> dict[str, Any]:
    deadline = time.monotonic() + _WAIT_SECONDS
    while True:
        try:
            return client.ask(body, model)
        except ServiceError as error:
            if error.status not in _NOT_YET or time.monotonic() > deadline:
                raise ServiceError(f"deployed, but not predicting: {error}", error.status) from error
        time.sleep(_PAUSE_SECONDS)


def predict_request(manifest: dict[str, Any]) -> dict[str, Any]:
    """A request of one row of the model's own values, as TensorFlow Serving has it.

    >>> tensor = {"name": "x", "dtype": "float32", "shape": [-1, 2]}
    >>> predict_request({"default_signature": "predict", "signatures": {"predict": {"inputs": [tensor]}}})
    {'instances': [[0.0, 0.0]]}
    """
    values = {each["name"]: _values(each, manifest) for each in _inputs(manifest)}
    own = {"prepared": True} if manifest.get("preprocessing") else {}
    if not all(each["shape"][:1] == [-1] for each in _inputs(manifest)):
        return {**own, "inputs": values if len(values) > 1 else next(iter(values.values()))}
    row = {name: value[0] for name, value in values.items()}
    return {**own, "instances": [row if len(row) > 1 else next(iter(row.values()))]}


def infer_request(manifest: dict[str, Any]) -> dict[str, Any]:
    """The same request as the Open Inference Protocol has it.

    >>> tensor = {"name": "x", "dtype": "float32", "shape": [-1, 2]}
    >>> infer_request({"default_signature": "predict", "signatures": {"predict": {"inputs": [tensor]}}})
    {'inputs': [{'name': 'x', 'datatype': 'FP32', 'shape': [1, 2], 'data': [[0.0, 0.0]]}]}
    """
    inputs = [
        {
            "name": each["name"],
            "datatype": DATATYPES[each["dtype"]],
            "shape": _shape(each),
            "data": _values(each, manifest),
        }
        for each in _inputs(manifest)
    ]
    return {**({"parameters": {"prepared": True}} if manifest.get("preprocessing") else {}), "inputs": inputs}


def _inputs(manifest: dict[str, Any]) -> list[dict[str, Any]]:
    inputs: list[dict[str, Any]] = manifest["signatures"][manifest["default_signature"]]["inputs"]
    return inputs


def _shape(tensor: dict[str, Any]) -> list[int]:
    """Of a batch of one row."""
    return [1 if size < 0 else size for size in tensor["shape"]]


def _values(tensor: dict[str, Any], manifest: dict[str, Any]) -> Any:
    """Nested values of the tensor's shape: those that the model is known to compute with, or zeros."""
    shape, known = _shape(tensor), manifest.get("warm_up", {}).get(tensor["name"])
    zero = {"bool": False, "string": ""}.get(tensor["dtype"], 0.0 if tensor["dtype"].startswith("float") else 0)
    row = [zero] if known is None else known if isinstance(known, list) else [known]
    flat = [row[place % len(row)] for place in range(math.prod(shape))]
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat if shape else flat[0]
