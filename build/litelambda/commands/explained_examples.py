"""Explanations of the rows that a report shows, by the code that is deployed.

The version is laid out in a folder of its own before it is published, and asked as a client asks it.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.commands.local_function import LambdaContext, load_handler
from litelambda.common.child_process import ChildCrashError, ChildProcess, shared_folder
from litelambda.common.errors import VerificationError
from litelambda.data.dataset import Dataset
from litelambda.data.raw_form import RawForm
from litelambda.evaluation.drawn_explanations import drawn
from litelambda.evaluation.examples import raw_values
from litelambda.publishing.publish import Description, make_manifest
from litelambda_serving.errors import ServingError

_MOST_SECONDS = 20.0  # of a build, for all explanations
_RUNS = 400  # of the model that a row takes, about


def with_explanations(
    report: Mapping[str, Any], data: Dataset, description: Description, files: Mapping[str, bytes]
) -> dict[str, Any]:
    """A report whose examples are explained.

    Args:
        report: so far; its `examples` and `typical` rows get an `explanation`, or it an `explanations_left_out`.
        data: of the build.
        description: of the version.
        files: the artifact, and what explanations need besides.
    """
    rows = [*report.get("examples", []), *report.get("typical", [])]
    if not rows:
        return dict(report)
    name, version = report["recipe"]["publish"]["name"], report["version"]
    count = int(_MOST_SECONDS * 1e6 / (_RUNS * max(report["latency_us"]["quantized"], 1.0)))
    instances = _instances(data, np.array([each["row"] for each in rows[:count]], np.intp))
    if not instances:
        return {**report, "explanations_left_out": "the model takes too long to be run hundreds of times for a row"}
    files = {**files, **description.assets}
    manifest = json.dumps(make_manifest(name, version, files, description)).encode()
    try:
        found = _ask(name, version, {**files, "manifest.json": manifest}, instances)
    except (ServingError, VerificationError) as error:
        return {**report, "explanations_left_out": str(error)}
    for each, explanation in zip(rows, found, strict=False):
        attributions = explanation.pop("attributions")
        explanation.pop("standard_errors", None)
        each["explanation"] = {**explanation, "drawn": drawn(attributions, each["shows"], data.source_shape)}
    return dict(report)


def _instances(data: Dataset, rows: NDArray[np.intp]) -> list[Any]:
    """Test rows as a client sends them."""
    if not len(rows):
        return []
    if data.raw_test is not None and isinstance(data.preprocessing, RawForm):
        columns = data.raw_test(rows)
        return [{name: _as_json(values[at]) for name, values in columns.items()} for at in range(len(rows))]
    return list(raw_values(data, rows).tolist())


def _as_json(value: Any) -> Any:
    return {"b64": base64.b64encode(value).decode()} if isinstance(value, bytes) else value


def _ask(name: str, version: int, files: Mapping[str, bytes], instances: Sequence[Any]) -> list[dict[str, Any]]:
    with TemporaryDirectory(dir=shared_folder()) as scratch:
        folder = Path(scratch, name, str(version))
        folder.mkdir(parents=True)
        for file, content in files.items():
            (folder / file).write_bytes(content)
        try:
            with ChildProcess(timeout_s=6 * _MOST_SECONDS) as child:
                return child.call(explain_in_child, Path(scratch).as_uri(), name, version, list(instances))
        except (ChildCrashError, TimeoutError) as error:
            raise VerificationError(f"the explanations did not end: {error}") from error


def explain_in_child(url: str, name: str, version: int, instances: list[Any]) -> list[dict[str, Any]]:
    """In a process of its own: the answers of the handler that is deployed.

    Raises:
        VerificationError: it refuses the rows; the message has its reason.
        ServingError: the version cannot be loaded.
    """
    with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
        handler = load_handler(url, name, version=str(version))
        return [_explain(handler, name, version, instance) for instance in instances]


def _explain(handler: Any, name: str, version: int, instance: Any) -> dict[str, Any]:
    path = f"/v1/models/{name}/versions/{version}:explain"
    context = {"http": {"method": "POST", "path": path}, "stage": "$default"}
    event = {"version": "2.0", "rawPath": path, "headers": {}, "requestContext": context, "isBase64Encoded": False}
    answer = handler({**event, "body": json.dumps({"instances": [instance]})}, LambdaContext())
    document = json.loads(answer["body"])
    if answer["statusCode"] != 200:
        raise VerificationError(f"no explanation: {document.get('error', answer['statusCode'])}")
    (found,) = document["explanations"]
    return dict(found)
