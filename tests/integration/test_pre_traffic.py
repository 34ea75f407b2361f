"""CodeDeploy's hook: real handlers behind real AWS clients, whose requests are answered here."""

from __future__ import annotations

import importlib
import io
import json
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from litelambda.common.paths import PROJECT
from support.golden_store import golden, publish
from support.handler_client import Context, load_module

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Handler = Callable[[Any, Any], Any]

NEW, LIVE = "arn:aws:lambda:eu-west-1:111122223333:function:stack-predict:8", "stack-predict:live"
EVENT = {"DeploymentId": "d-ABCDEF123", "LifecycleEventHookExecutionId": "eyJlbmNyeXB0ZWREYXRhIjoi"}
CALLER = "arn:aws:iam::111122223333:role/stack-pre-traffic"


class _Raw(io.BytesIO):
    """A body as urllib3 has it."""

    def stream(self, *_: Any, **__: Any) -> Any:
        yield self.read()


class Aws:
    """Lambda with two versions of the predict function, and CodeDeploy.

    Attributes:
        versions: the handlers, by the names that they are invoked by.
        told: statuses that CodeDeploy got, with what they are about.
    """

    def __init__(self) -> None:
        self.versions: dict[str, Handler] = {}
        self.told: list[dict[str, str]] = []

    def client(self, service: str) -> Any:
        """A client of boto3, which checks what it sends against the service's own model, without a network."""
        client = boto3.client(service, "eu-west-1", aws_access_key_id="key", aws_secret_access_key="secret")
        client.meta.events.register("provide-client-params.*.*", self._note)
        client.meta.events.register("before-send.*.*", self._answer)
        return client

    def _note(self, params: dict[str, Any], **_: Any) -> None:
        self._params = params

    def _answer(self, request: Any, **_: Any) -> AWSResponse:
        if "FunctionName" not in self._params:
            self.told.append(self._params)
            body = json.dumps({"lifecycleEventHookExecutionId": EVENT["LifecycleEventHookExecutionId"]}).encode()
            return AWSResponse(request.url, 200, {}, _Raw(body))
        headers = {}
        try:
            answer = self.versions[self._params["FunctionName"]](json.loads(self._params["Payload"]), Context())
        except RuntimeError as error:  # as Lambda reports an INIT that failed
            headers = {"X-Amz-Function-Error": "Unhandled"}
            answer = {"errorMessage": str(error), "errorType": "RuntimeError"}
        return AWSResponse(request.url, 200, headers, _Raw(json.dumps(answer).encode()))


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    """Both services, and the hook's environment."""
    aws = Aws()
    monkeypatch.setenv("NEW_VERSION", NEW)
    monkeypatch.setenv("LIVE_VERSION", LIVE)
    monkeypatch.setenv("MODEL_NAME", "m")
    monkeypatch.setenv("CALLER_ARN", CALLER)
    return aws


def deploy(aws: Aws, new: Handler, live: Handler, capsys: pytest.CaptureFixture[str]) -> tuple[str, dict[str, Any]]:
    """Run the hook between two versions; return the status that CodeDeploy got, and the hook's line in the log."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(PROJECT / "infra" / "pre_traffic")
        hook = importlib.import_module("pre_traffic")
    aws.versions = {NEW: new, LIVE: live}
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hook.boto3, "client", _client_of(aws))
        assert hook.handler(EVENT, None) is None
    (told,) = aws.told
    assert {name: told[name] for name in ("deploymentId", "lifecycleEventHookExecutionId")} == {
        "deploymentId": EVENT["DeploymentId"],
        "lifecycleEventHookExecutionId": EVENT["LifecycleEventHookExecutionId"],
    }
    line: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert line["message"] == "pre-traffic"
    assert line["level"] == ("INFO" if told["status"] == "Succeeded" else "ERROR")
    return told["status"], line


def _client_of(aws: Aws) -> Any:
    make = boto3.client  # before it is replaced

    def client(service: str) -> Any:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boto3, "client", make)
            return aws.client(service)

    return client


MODELS: dict[str, dict[str, Any]] = {
    "tiny_int8": {},
    "half_plus_two": {},
    "two_by_two": {},
    "scalar": {},
    "four_rows": {},
    "strings": {},
    "dtype_float16": {},
    "dtype_bool": {},
    "dtype_int64": {},
    "division": {"warm_up": {"b": 1}},
}


@pytest.mark.parametrize("name", MODELS)
def test_a_version_that_predicts_gets_traffic(
    tmp_path: Path, aws: Aws, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    """Models of every kind of signature are asked with rows of their own, and both versions agree."""
    publish(tmp_path, "m", 1, golden(name), **MODELS[name])
    new, live = (load_module(tmp_path, "m").handler for _ in range(2))
    assert deploy(aws, new, live, capsys) == (
        "Succeeded",
        {"level": "INFO", "message": "pre-traffic", "checked": ["m:1, compared with the live version"]},
    )


@pytest.fixture(scope="module")
def handler(tmp_path_factory: pytest.TempPathFactory) -> Handler:
    """A function whose model is version 1 of `m`."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "m", 1, golden("tiny_int8"))
    made: Handler = load_module(root, "m").handler
    return made


def answering(handler: Handler, change: Callable[[Any], Any]) -> Handler:
    """A version whose predictions are changed on their way out."""

    def changed(event: Any, context: Any) -> Any:
        answer = handler(event, context)
        body = json.loads(answer["body"])
        if "predictions" in body:
            answer["body"] = json.dumps({"predictions": change(body["predictions"])})
        return answer

    return changed


def broken(event: Any, context: Any) -> Any:
    raise RuntimeError("the model cannot be loaded")


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (
            lambda rows: [[value + 0.01 for value in row] for row in rows],
            "model m, version 1: the new function version",
        ),
        (lambda rows: [[float("nan") for _ in row] for row in rows], "an answer has NaN or an infinity"),
        (lambda rows: [row[:-1] for row in rows], "has the shape [1, 2], expected [1, 3]"),
        (lambda rows: rows * 2, "has the shape [2, 3], expected [1, 3]"),
    ],
    ids=["other values", "not finite", "short rows", "more rows"],
)
def test_a_version_that_answers_otherwise_gets_none(
    handler: Handler, aws: Aws, capsys: pytest.CaptureFixture[str], change: Callable[[Any], Any], error: str
) -> None:
    """Answers that differ from the live version's, are not finite or have another shape fail the deployment."""
    status, line = deploy(aws, answering(handler, change), handler, capsys)
    assert status == "Failed"
    assert error in line["error"]


def test_a_version_that_does_not_start_gets_none(
    handler: Handler, aws: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new version whose INIT fails ends the deployment, with the reason in the log; a live one does not."""
    status, line = deploy(aws, broken, handler, capsys)
    assert status == "Failed"
    assert "the model cannot be loaded" in line["error"]
    aws.told.clear()
    status, line = deploy(aws, handler, broken, capsys)
    assert (status, line["checked"]) == ("Succeeded", ["m:1, not served by the live version"])


def test_what_own_code_answers_is_not_judged_by_its_shape(
    tmp_path: Path, aws: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    """A function with code of its own answers what that makes of the outputs, the same in both versions."""
    publish(tmp_path, "m", 1, golden("tiny_int8"))
    code = tmp_path / "code.py"
    code.write_text("def postprocess(outputs):\n    return [{'best': max(row)} for row in outputs['probabilities']]\n")
    new, live = (load_module(tmp_path, "m", CUSTOM_CODE=str(code)).handler for _ in range(2))
    assert deploy(aws, new, live, capsys)[0] == "Succeeded"


def test_another_version_of_the_model_is_not_compared(
    tmp_path: Path, handler: Handler, aws: Aws, capsys: pytest.CaptureFixture[str]
) -> None:
    """A deployment that also changes the model is tried for its answers alone."""
    publish(tmp_path, "m", 2, golden("half_plus_two"))
    status, line = deploy(aws, load_module(tmp_path, "m").handler, handler, capsys)
    assert (status, line["checked"]) == ("Succeeded", ["m:2, not served by the live version"])


def test_every_model_of_the_store_is_tried(
    tmp_path: Path, aws: Aws, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A function without a model of its own is tried with those of its store."""
    monkeypatch.setenv("MODEL_NAME", "")
    for name in ("b", "a"):
        publish(tmp_path, name, 1, golden("tiny_int8"))
    new, live = (load_module(tmp_path).handler for _ in range(2))
    status, line = deploy(aws, new, live, capsys)
    assert status == "Succeeded"
    assert [each[:4] for each in line["checked"]] == ["a:1,", "b:1,"]


@pytest.mark.parametrize(("callers", "status"), [([CALLER], "Succeeded"), (["arn:aws:iam::1:role/other"], "Failed")])
def test_an_access_policy_has_to_let_the_hook_in(
    tmp_path: Path, aws: Aws, capsys: pytest.CaptureFixture[str], callers: list[str], status: str
) -> None:
    """The hook is a caller like others, by its role's ARN."""
    callers = [each.replace("::1:", "::111122223333:") for each in callers]
    publish(tmp_path, "m", 1, golden("tiny_int8"))
    rule = {"callers": callers, "actions": ["predict", "metadata"], "models": ["*"]}
    new = load_module(tmp_path, "m", ACCESS_POLICY=json.dumps({"rules": [rule]})).handler
    told, line = deploy(aws, new, new, capsys)
    assert told == status, line
    assert status == "Succeeded" or "is not allowed" in line["error"]
