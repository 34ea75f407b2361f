"""CodeDeploy's hook before traffic, `pre_traffic.handler`: a new version of the predict function has to predict first.

It is asked for every model that the function has at hand, with rows made by the model's own signature, before a caller
sees it. Its answers must have the promised shapes, be finite, and equal the live version's where both serve the same
version of the model. Runs on the stock client, with the boto3 of Lambda's runtime; knows the function by its answers
alone.

Source: docs.aws.amazon.com/codedeploy/latest/userguide/reference-appspec-file-structure-hooks.html, "Lambda".
"""

from __future__ import annotations

import json
import math
import os
import sys
import traceback
from typing import Any

import boto3

_OK, _NOT_IMPLEMENTED = 200, 501
_MAX_MODELS = 20  # of a store with many, the first by name
_RELATIVE, _ABSOLUTE = 1e-4, 1e-6
"""What the same model's answers may differ by: two processors need not add floats in the same order."""


class CheckError(Exception):
    """The new version does not answer as it must."""


def handler(event: dict[str, str], context: Any) -> None:  # noqa: ARG001 - Lambda's signature
    """Try the new version and tell CodeDeploy whether traffic may go to it.

    Args:
        event: CodeDeploy's, with `DeploymentId` and `LifecycleEventHookExecutionId`.
        context: Lambda's.
    """
    status = "Failed"
    fields: dict[str, Any]
    try:
        fields = {"checked": _check(os.environ["NEW_VERSION"], os.environ["LIVE_VERSION"])}
        status = "Succeeded"
    except CheckError as error:
        fields = {"error": str(error)}
    except Exception:  # noqa: BLE001 - no traffic goes to what could not be tried, for any reason
        fields = {"error": traceback.format_exc()}
    level = "INFO" if status == "Succeeded" else "ERROR"
    sys.stdout.write(json.dumps({"level": level, "message": "pre-traffic", **fields}) + "\n")
    boto3.client("codedeploy").put_lifecycle_event_hook_execution_status(
        deploymentId=event["DeploymentId"],
        lifecycleEventHookExecutionId=event["LifecycleEventHookExecutionId"],
        status=status,
    )


def _check(new: str, live: str) -> list[str]:
    """Try a version; return what was tried.

    Raises:
        CheckError: it does not answer as it must.
    """
    _answer_of(new, "GET", "/")
    name = os.environ.get("MODEL_NAME", "")
    names = [name] if name else sorted({each["name"] for each in _answer_of(new, "POST", "/v2/repository/index")[1]})
    return [_check_model(new, live, name) for name in names[:_MAX_MODELS]]


def _check_model(new: str, live: str, name: str) -> str:
    _, metadata = _answer_of(new, "GET", f"/v2/models/{name}")
    # V2 refuses where the function has code of its own; then what an answer holds is its owner's choice.
    is_own = _invoke(new, "POST", f"/v2/models/{name}/infer", {})["statusCode"] == _NOT_IMPLEMENTED
    compared = False
    for vary in (False, True):
        body, rows = _request(metadata, vary=vary)
        version, answer = _answer_of(new, "POST", f"/v1/models/{name}:predict", body)
        outputs = answer["predictions"] if "predictions" in answer else answer["outputs"]
        _check_finite(outputs)
        if not is_own:
            _check_shapes(outputs, metadata["outputs"], rows)
        pinned = f"/v1/models/{name}/versions/{version}:predict"
        try:
            _, other = _answer_of(live, "POST", pinned, body)
        except CheckError:  # another version of the model is live, or what is live does not work
            continue
        compared = True
        _, answer = _answer_of(new, "POST", pinned, body)
        if not _equal(answer, other):
            raise CheckError(
                f"model {name}, version {version}: the new function version answers {json.dumps(answer)[:300]}, "
                f"the live one {json.dumps(other)[:300]}"
            )
    return f"{name}:{version}, {'compared with the live version' if compared else 'not served by the live version'}"


def _answer_of(function: str, method: str, path: str, body: Any = None) -> tuple[str, Any]:
    """The model's version, and what a version of the function answers.

    Raises:
        CheckError: it failed, or answered with an error.
    """
    answer = _invoke(function, method, path, body)
    if answer["statusCode"] != _OK:
        raise CheckError(f"{function}: {method} {path} failed: {json.dumps(answer)[:500]}")
    headers = {name.lower(): value for name, value in answer["headers"].items()}
    return headers.get("x-model-version", ""), json.loads(answer["body"])


def _invoke(function: str, method: str, path: str, body: Any = None) -> dict[str, Any]:
    """The response of a version of the function, invoked as the API invokes it.

    Raises:
        CheckError: it failed.
    """
    caller = {"iam": {"userArn": os.environ.get("CALLER_ARN", "")}}  # whom an access policy has to allow this
    event = {
        "version": "2.0",
        "rawPath": path,
        "headers": {"content-type": "application/json"},
        "requestContext": {"http": {"method": method, "path": path}, "stage": "$default", "authorizer": caller},
        "body": None if body is None else json.dumps(body),
        "isBase64Encoded": False,
    }
    invoked = boto3.client("lambda").invoke(FunctionName=function, Payload=json.dumps(event).encode())
    answer: dict[str, Any] = json.loads(invoked["Payload"].read())
    if "FunctionError" in invoked:
        raise CheckError(f"{function} failed: {json.dumps(answer)[:500]}")
    return answer


def _request(metadata: dict[str, Any], *, vary: bool) -> tuple[dict[str, Any], int]:
    """A prediction's body with rows of the model's own values, and their number.

    Args:
        metadata: V2's of the model.
        vary: fill floats with values from 0 to 1 instead of zeros, where the model computes with any.
    """
    inputs = metadata["inputs"]
    shapes = {each["name"]: [1 if size < 0 else size for size in each["shape"]] for each in inputs}
    known = metadata.get("warm_up", {})
    values = {each["name"]: _tensor(each, shapes[each["name"]], known, vary) for each in inputs}
    if all(each["shape"][:1] == [-1] for each in inputs):
        return {"instances": [{name: value[0] for name, value in values.items()}], "prepared": True}, 1
    return {"inputs": values, "prepared": True}, max((shape[0] for shape in shapes.values() if shape), default=1)


def _tensor(spec: dict[str, Any], shape: list[int], known: dict[str, Any], vary: bool) -> Any:
    """Nested values of a shape: those that the model is known to compute with, or made ones."""
    count = math.prod(shape)
    if spec["name"] in known:
        value = known[spec["name"]]
        row = value if isinstance(value, list) else [value]
        flat = [row[place % len(row)] for place in range(count)]
    elif spec["datatype"].startswith("FP"):
        flat = [place % 97 / 97 if vary else 0.0 for place in range(count)]
    else:
        flat = [{"BYTES": "", "BOOL": False}.get(spec["datatype"], 0)] * count
    for size in reversed(shape[1:]):
        flat = [flat[start : start + size] for start in range(0, len(flat), size)]
    return flat if shape else flat[0]


def _check_finite(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise CheckError("an answer has NaN or an infinity")
    if isinstance(value, (list, dict)):
        for each in value.values() if isinstance(value, dict) else value:
            _check_finite(each)


def _check_shapes(outputs: Any, promised: list[dict[str, Any]], rows: int) -> None:
    """Compare what came with what the model's metadata promises; a batch dimension has as many rows as were sent."""
    for each in promised:
        value = outputs
        if isinstance(outputs, dict):
            value = outputs[each["name"]]
        elif isinstance(outputs, list) and outputs and isinstance(outputs[0], dict):
            value = [row[each["name"]] for row in outputs]
        wanted = [rows if size < 0 else size for size in each["shape"]]
        if _shape(value) != wanted:
            raise CheckError(f"output {each['name']!r} has the shape {_shape(value)}, expected {wanted}")


def _shape(value: Any) -> list[int]:
    return [len(value), *(_shape(value[0]) if value else [])] if isinstance(value, list) else []


def _equal(one: Any, other: Any) -> bool:
    """Whether two answers are the same, floats within a tolerance."""
    if isinstance(one, float) and isinstance(other, float):
        return math.isclose(one, other, rel_tol=_RELATIVE, abs_tol=_ABSOLUTE)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[name], other[name]) for name in one)
    return bool(one == other)
