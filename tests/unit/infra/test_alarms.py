"""Every alarm watches a metric that exists, with the dimensions that it is published with."""

from __future__ import annotations

import importlib
import json
import time
from typing import TYPE_CHECKING, Any

import pytest

from litelambda.common.paths import PROJECT, TEMPLATE
from litelambda_serving.http import Response
from litelambda_serving.observability import Log
from support.cloudformation import Evaluator, load
from support.score_stack import score_stack

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE = "litelambda"
# AWS's documentation of each service's metrics: namespace and name, and a set of dimensions that it is published with.
PUBLISHED = {
    ("AWS/ApiGateway", "5xx"): {"ApiId"},
    ("AWS/Lambda", "Errors"): {"FunctionName"},
    ("AWS/Lambda", "Throttles"): {"FunctionName"},
    ("AWS/Lambda", "Duration"): {"FunctionName"},
    ("AWS/SQS", "ApproximateNumberOfMessagesVisible"): {"QueueName"},
    ("AWS/SQS", "ApproximateAgeOfOldestMessage"): {"QueueName"},
    ("AWS/States", "ExecutionsFailed"): {"StateMachineArn"},
    ("AWS/States", "ExecutionsTimedOut"): {"StateMachineArn"},
    ("AWS/States", "ExecutionsAborted"): {"StateMachineArn"},
    ("AWS/States", "ExecutionThrottled"): {"StateMachineArn"},
}


def _alarms(path: Path, **values: str) -> dict[str, dict[str, Any]]:
    evaluator, template = Evaluator(load(path), values), load(path)
    return {
        name: evaluator.resolve(resource["Properties"])
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
    }


def _emitted(line: str) -> dict[tuple[str, str], list[set[str]]]:
    """The metrics of an Embedded Metric Format document, as CloudWatch reads it, with their sets of dimensions."""
    fields = json.loads(line)
    emitted = {}
    for directive in fields["_aws"]["CloudWatchMetrics"]:
        sets = [set(names) for names in directive["Dimensions"]]
        assert all(isinstance(fields[name], str) and fields[name] for names in sets for name in names)
        for metric in directive["Metrics"]:  # a number, or several
            values = fields[metric["Name"]]
            assert all(isinstance(value, (int, float)) for value in (values if isinstance(values, list) else [values]))
            emitted[directive["Namespace"], metric["Name"]] = sets
    return emitted


def _request_line(capsys: pytest.CaptureFixture[str], **response: Any) -> str:
    Log("INFO", NAMESPACE, "stack-predict").request(
        Response(200, b"", **response), "POST", time.perf_counter_ns(), "id"
    )
    return capsys.readouterr().out


@pytest.mark.parametrize("namespace", [NAMESPACE, ""])
@pytest.mark.parametrize("path", [PROJECT / "infra" / "alarms.yaml", PROJECT / "infra" / "scoring.yaml"], ids=str)
def test_alarms_watch_what_is_published(path: Path, namespace: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each alarm's metric is one of AWS's or of the request line's, and its dimensions are a set of that metric's."""
    emitted = _emitted(_request_line(capsys, route="predict", model="tiny", version=1))
    published = {**{metric: [dimensions] for metric, dimensions in PUBLISHED.items()}, **emitted}
    alarms = _alarms(path, MetricsNamespace=namespace)
    assert alarms
    for name, alarm in alarms.items():
        dimensions = {dimension["Name"] for dimension in alarm["Dimensions"]}
        assert dimensions in published[alarm["Namespace"], alarm["MetricName"]], name


def test_alarms_follow_the_function_of_their_stack() -> None:
    """The nested template is told the function's name, which is the dimension's value in the function's own lines."""
    parameters = load(TEMPLATE)["Resources"]["Alarms"]["Properties"]["Parameters"]
    assert parameters["FunctionName"] == {"Ref": "PredictFunction"}
    alarms = _alarms(PROJECT / "infra" / "alarms.yaml", MetricsNamespace=NAMESPACE, FunctionName="stack-predict")
    assert alarms["ServerErrors"]["Dimensions"] == [{"Name": "FunctionName", "Value": "stack-predict"}]
    assert alarms["ServerErrors"]["MetricName"] == "ServerError"


def test_every_way_to_fail_has_its_alarm() -> None:
    """The batch stack's alarms see runs that fail, time out, are aborted or throttled, errors and lost messages."""
    alarms = _alarms(PROJECT / "infra" / "scoring.yaml").values()
    assert {alarm["MetricName"] for alarm in alarms} == {
        *("ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted", "ExecutionThrottled", "Errors"),
        *("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage"),
    }
    assert all(alarm["TreatMissingData"] == "notBreaching" for alarm in alarms)


def test_stages_and_versions_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    """Every set of dimensions has the function, hence the stack; one tells a canary's version from the other."""
    line = _request_line(capsys, route="predict", model="tiny", version=8)
    fields = json.loads(line)
    assert (fields["FunctionName"], fields["Model"], fields["Version"]) == ("stack-predict", "tiny", "8")
    for sets in _emitted(line).values():
        assert all("FunctionName" in names for names in sets)
        assert {"FunctionName", "Route", "Model", "Version"} in sets


def test_scoring_tells_its_stack_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch function's metrics, those of its second invocation as well, carry the function's name."""
    environment = {"AWS_LAMBDA_FUNCTION_NAME": "stack-score", "METRICS_NAMESPACE": NAMESPACE}
    with score_stack(tmp_path, monkeypatch, **environment) as stack:
        assert stack.handler is importlib.import_module("score")
        for key in ("a.jsonl", "b.jsonl"):
            stack.put(f"in/{key}", b"[1, 2, 3, 4]\n")
            stack.invoke({"input": f"s3://data/in/{key}", "output": "s3://data/predictions/"})
    lines = [line for line in capsys.readouterr().out.splitlines() if "CloudWatchMetrics" in line]
    assert len(lines) == 2
    for line in lines:
        assert json.loads(line)["FunctionName"] == "stack-score"
        assert all("FunctionName" in names for sets in _emitted(line).values() for names in sets)
