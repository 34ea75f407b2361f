"""Alarms and dashboards have metrics and fields that exist: what is published, and what the log's lines have."""

from __future__ import annotations

import importlib
import io
import json
import time
from contextlib import redirect_stdout
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from litelambda.common.paths import PROJECT, TEMPLATE
from litelambda_serving.http import Response
from litelambda_serving.observability import METRICS, Log
from litelambda_serving.recorder import Recorder
from litelambda_serving.scoring.errors import InputError
from support.cloudformation import Evaluator, load
from support.golden_store import golden, publish, set_aliases
from support.handler_client import load_module, send
from support.log_queries import asked, fields_of
from support.score_stack import score_stack

if TYPE_CHECKING:
    from pathlib import Path

ARN = "arn:aws:cloudwatch:eu-west-1:123456789012:alarm:"
NAMESPACE = "litelambda"
ALARMS, DASHBOARD, SCORING, REST_API = (
    PROJECT / "infra" / f"{name}.yaml" for name in ("alarms", "dashboard", "scoring", "rest-api")
)

Metric = tuple[str, str]
Emitted = dict[Metric, list[set[str]]]
"""Namespace and name of metrics, with the sets of dimensions that each is recorded by."""

# Names and dimensions as in AWS's documentation, by page.
DOCUMENTED = [
    # Lambda, "Types of metrics for Lambda functions"
    ("AWS/Lambda", "FunctionName", "Invocations Errors Throttles Duration ConcurrentExecutions"),
    # API Gateway, "Monitor CloudWatch metrics for HTTP APIs"
    ("AWS/ApiGateway", "ApiId", "4xx 5xx Count IntegrationLatency Latency DataProcessed"),
    # API Gateway, "Amazon API Gateway dimensions and metrics", of REST APIs
    ("AWS/ApiGateway", "ApiName", "4XXError 5XXError Count IntegrationLatency Latency"),
    # SQS, "Available CloudWatch metrics for Amazon SQS"
    ("AWS/SQS", "QueueName", "ApproximateAgeOfOldestMessage ApproximateNumberOfMessagesVisible"),
    ("AWS/SQS", "QueueName", "ApproximateNumberOfMessagesNotVisible"),
    # Step Functions, "Monitoring Step Functions metrics using Amazon CloudWatch"
    ("AWS/States", "StateMachineArn", "ExecutionsStarted ExecutionsSucceeded ExecutionsFailed ExecutionsTimedOut"),
    ("AWS/States", "StateMachineArn", "ExecutionsAborted ExecutionThrottled"),
]
OF_AWS: Emitted = {}
for _namespace, _dimension, _names in DOCUMENTED:
    for _name in _names.split():
        OF_AWS.setdefault((_namespace, _name), []).append({_dimension})


def _alarms(path: Path, **values: str) -> dict[str, dict[str, Any]]:
    evaluator, template = Evaluator(load(path), values), load(path)
    return {
        name: evaluator.resolve(resource["Properties"])
        for name, resource in template["Resources"].items()
        if resource["Type"] == "AWS::CloudWatch::Alarm"
        and ("Condition" not in resource or evaluator.resolve({"Condition": resource["Condition"]}))
    }


def _widgets(path: Path, **values: str) -> list[dict[str, Any]]:
    """The widgets of a template's dashboard."""
    template = load(path)
    (resource,) = (each for each in template["Resources"].values() if each["Type"] == "AWS::CloudWatch::Dashboard")
    body = Evaluator(template, values).resolve(resource["Properties"]["DashboardBody"])
    widgets: list[dict[str, Any]] = json.loads(body)["widgets"]
    return widgets


def _shown(path: Path, **values: str) -> list[tuple[Metric, set[str]]]:
    """The metrics of a template's dashboard, with the dimensions it asks for."""
    graphs = [each for each in _widgets(path, **values) if each["type"] == "metric"]
    texts = [
        [each for each in metric if isinstance(each, str)]
        for graph in graphs
        for metric in graph["properties"]["metrics"]
    ]
    return [((namespace, name), set(dimensions[::2])) for namespace, name, *dimensions in texts]


def _emitted(line: str) -> Emitted:
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


def _request_line(capsys: pytest.CaptureFixture[str], status: int = 200, **response: Any) -> str:
    log, began_ns = Log("INFO", NAMESPACE, "stack-predict"), time.perf_counter_ns()
    log.request(Response(status, b"", **response), "POST", began_ns, "id")
    return capsys.readouterr().out


def _drift_line() -> str:
    """The line of a full window, of a version with one feature."""
    baseline = {"features": [{"name": "age", "counts": [500, 500]}], "limits": [[50, 2.3]]}
    counter = SimpleNamespace(rows=60, document=baseline, take=lambda: [[30, 30]])
    servable = SimpleNamespace(drift=counter, manifest=SimpleNamespace(model="tiny", version=1))
    repository: Any = SimpleNamespace(loaded=lambda: [servable])
    with redirect_stdout(io.StringIO()) as output:
        Recorder({"DRIFT_WINDOW": "50"}, repository, Log("ERROR", NAMESPACE, "stack-predict")).after_response()
    return output.getvalue()


def _all_emitted(lines: list[str]) -> Emitted:
    emitted: Emitted = {}
    for line in lines:
        if "CloudWatchMetrics" in line:
            for metric, sets in _emitted(line).items():
                emitted[metric] = emitted.get(metric, sets)
                assert emitted[metric] == sets, metric
    return emitted


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the handler writes: of a cold start, a model that a request loads, a shadow, a refusal, a fault, drift."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "m", 1, golden("tiny_int8"))
    publish(root, "m", 2, golden("tiny_int8"))
    publish(root, "other", 1, golden("tiny_int8"))
    publish(root, "broken", 1, golden("tiny_int8"))
    (root / "broken/1/model.tflite").write_bytes(b"")
    set_aliases(root, {"latest": 1, "shadow": {"latest": 2}})
    with redirect_stdout(io.StringIO()) as output:
        handler = load_module(root, "m").handler
        for name in ("m", "other", "absent", "broken"):
            send(handler, "POST", f"/v1/models/{name}:predict", {"instances": [[0.1, 0.2, 0.3, 0.4]]})
    return [*output.getvalue().splitlines(), _drift_line()]


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the batch function writes: of a file with a bad row, and of one that cannot be scored."""
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as output,
        score_stack(tmp_path_factory.mktemp("scored"), patch, LOG_LEVEL="INFO", METRICS_NAMESPACE=NAMESPACE) as stack,
    ):
        stack.put("in/a.jsonl", b"[1, 2, 3, 4]\n" * 200 + b"[1]\n")
        stack.put("in/b.jsonl", b"[1]\n")
        stack.invoke({"input": "s3://data/in/a.jsonl", "output": "s3://data/predictions/"})
        with pytest.raises(InputError):
            stack.invoke({"input": "s3://data/in/b.jsonl", "output": "s3://data/predictions/"})
    return output.getvalue().splitlines()


@pytest.fixture(params=["predict", "score"])
def stack(request: pytest.FixtureRequest) -> tuple[Path, Path, list[str]]:
    """Each stack's templates with alarms and with a dashboard, and the lines that its function writes."""
    if request.param == "predict":
        return ALARMS, DASHBOARD, request.getfixturevalue("served")
    return SCORING, SCORING, request.getfixturevalue("scored")


@pytest.mark.parametrize("rest_api", ["", "stack"], ids=["HTTP API", "REST API"])
@pytest.mark.parametrize("namespace", [NAMESPACE, ""])
def test_alarms_and_dashboards_show_what_is_published(
    stack: tuple[Path, Path, list[str]], namespace: str, rest_api: str
) -> None:
    """Each metric of an alarm or a dashboard is AWS's or one of a real run's, and has a set of its dimensions."""
    alarms, dashboard, lines = stack
    published = {**OF_AWS, **_all_emitted(lines)}
    watched = {
        name: ((alarm["Namespace"], alarm["MetricName"]), {each["Name"] for each in alarm["Dimensions"]})
        for name, alarm in _alarms(alarms, MetricsNamespace=namespace, RestApiName=rest_api).items()
        if namespace or alarm["Namespace"]  # without own metrics there are no alarms on them
    }
    assert watched
    for name, (metric, dimensions) in watched.items():
        assert dimensions in published[metric], name
    shown = _shown(dashboard, MetricsNamespace=namespace, RestApiName=rest_api)
    assert ({metric[0] for metric, _ in shown} >= {namespace}) == bool(namespace)
    for metric, dimensions in shown:
        assert dimensions in published[metric], metric
        assert dimensions != ({"ApiId"} if rest_api else {"ApiName"})


def test_what_is_emitted_is_watched(stack: tuple[Path, Path, list[str]]) -> None:
    """Every metric of a real run, which is billed, is in an alarm or the dashboard of its stack, by one set."""
    alarms, dashboard, lines = stack
    values = {"MetricsNamespace": NAMESPACE, "DriftWindow": "500"}
    emitted = _all_emitted(lines)
    watched = {(alarm["Namespace"], alarm["MetricName"]) for alarm in _alarms(alarms, **values).values()}
    assert emitted.keys() <= watched | {metric for metric, _ in _shown(dashboard, MetricsNamespace=NAMESPACE)}
    assert all(len(sets) == 1 for sets in emitted.values())


def test_a_dashboards_queries_find_something(stack: tuple[Path, Path, list[str]]) -> None:
    """Each query of a dashboard reads its function's log, and fields that one line of a real run has, all of them."""
    _, dashboard, lines = stack
    widgets = _widgets(dashboard, FunctionName="<ScoreFunction>")
    queries = [each["properties"]["query"] for each in widgets if each["type"] == "log"]
    assert queries
    found = [fields_of(json.loads(line)) for line in lines if line.startswith("{")]
    conditional = {"ClientError", "ServerError", "InitLatency", "LoadLatency"}  # counted where they are
    for query in queries:
        assert query.startswith("SOURCE '/aws/lambda/<ScoreFunction>' | filter ")
        assert any(asked(query) - conditional <= fields for fields in found), query
        assert asked(query) <= set().union(*found), query


def test_every_metric_of_the_code_is_emitted(served: list[str]) -> None:
    """The code's table of metrics names those that requests and windows have, by function, and no other."""
    assert _all_emitted(served) == {(NAMESPACE, name): [{"FunctionName"}] for name in METRICS}


@pytest.mark.parametrize("path", [DASHBOARD, SCORING], ids=lambda path: path.stem)
def test_widgets_do_not_overlap(path: Path) -> None:
    """Each widget has its own place in the grid of 24 columns, with own metrics and without."""
    for namespace in (NAMESPACE, ""):
        taken: set[tuple[int, int]] = set()
        for each in _widgets(path, MetricsNamespace=namespace):
            assert each["x"] + each["width"] <= 24
            cells = {(x + each["x"], y + each["y"]) for x in range(each["width"]) for y in range(each["height"])}
            assert not cells & taken
            taken |= cells


def test_dashboards_show_every_alarm() -> None:
    """The first widget is the state of all alarms of the stack."""
    names = set(_alarms(SCORING, MetricsNamespace=NAMESPACE))
    (first, *_) = _widgets(SCORING, MetricsNamespace=NAMESPACE)
    assert set(first["properties"]["alarms"]) == {f"<{name}.Arn>" for name in names}
    template = load(ALARMS)
    outputs = Evaluator(template, {}).resolve(template["Outputs"])
    assert set(outputs["Arns"]["Value"].split(",")) == {f"{ARN}<{name}>" for name in _alarms(ALARMS)}
    parameters = load(TEMPLATE)["Resources"]["MonitoringDashboard"]["Properties"]["Parameters"]
    assert parameters["AlarmArns"] == {"Fn::GetAtt": "Alarms.Outputs.Arns"}
    own = {"Ref": "AWS::StackName"}
    assert {name: parameters[name] for name in ("FunctionName", "ApiId", "RestApiName")} == {
        "FunctionName": {"Ref": "PredictFunction"},
        "ApiId": {"Ref": "HttpApi"},
        "RestApiName": {"Fn::If": ["HasRestApi", own, ""]},
    }
    assert load(TEMPLATE)["Resources"]["RestApi"]["Properties"]["Parameters"]["Name"] == own
    assert load(REST_API)["Resources"]["Api"]["Properties"]["Name"] == {"Ref": "Name"}


def test_alarms_follow_the_function_of_their_stack() -> None:
    """The nested template is told the function's name, which is the dimension's value in the function's own lines."""
    parameters = load(TEMPLATE)["Resources"]["Alarms"]["Properties"]["Parameters"]
    assert parameters["FunctionName"] == {"Ref": "PredictFunction"}
    alarms = _alarms(ALARMS, MetricsNamespace=NAMESPACE, FunctionName="stack-predict")
    assert alarms["ServerErrors"]["Dimensions"] == [{"Name": "FunctionName", "Value": "stack-predict"}]
    assert alarms["ServerErrors"]["MetricName"] == "ServerError"


def test_drift_is_watched_where_it_is_counted() -> None:
    """The alarm is there with a window and metrics, on the metric of a window's line: half of a day's windows."""
    assert "InputsDrifted" not in _alarms(ALARMS, MetricsNamespace=NAMESPACE)
    assert "InputsDrifted" not in _alarms(ALARMS, MetricsNamespace="", DriftWindow="500")
    alarm = _alarms(ALARMS, MetricsNamespace=NAMESPACE, DriftWindow="500")["InputsDrifted"]
    assert (alarm["Statistic"], alarm["Period"], alarm["Threshold"]) == ("Average", 86400, 0.5)
    emitted = _emitted(_drift_line())
    assert {each["Name"] for each in alarm["Dimensions"]} in emitted[alarm["Namespace"], alarm["MetricName"]]
    template = load(ALARMS)
    outputs = Evaluator(template, {"MetricsNamespace": NAMESPACE, "DriftWindow": "500"}).resolve(template["Outputs"])
    assert f"{ARN}<InputsDrifted>" in outputs["Arns"]["Value"].split(",")


def test_every_way_to_fail_has_its_alarm() -> None:
    """The batch stack has an alarm for each way that a run, a message, a file or a row can fail."""
    alarms = _alarms(SCORING).values()
    assert {alarm["MetricName"] for alarm in alarms} == {
        *("ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted", "ExecutionThrottled", "Errors"),
        *("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage", "FilesFailed", "RowsBad"),
    }
    assert all(alarm["TreatMissingData"] == "notBreaching" for alarm in alarms)


def test_stages_do_not_mix(capsys: pytest.CaptureFixture[str]) -> None:
    """What a request counts has the function's name, hence the stack's; the line tells a canary's version."""
    line = _request_line(capsys, 500, route="predict", model="tiny", version=8)
    fields = json.loads(line)
    assert (fields["FunctionName"], fields["Model"], fields["Version"]) == ("stack-predict", "tiny", "8")
    assert _emitted(line) == {(NAMESPACE, "ServerError"): [{"FunctionName"}]}


def test_a_request_that_succeeds_costs_no_metric(capsys: pytest.CaptureFixture[str]) -> None:
    """Its line, of an invocation's real identifier and of every field that a prediction has, is at most 300 bytes."""
    response = Response(200, b"", route="predict", model="mnist_mlp", version=8)
    response.timing = (time.perf_counter_ns(), time.perf_counter_ns(), 0, 0, 0)
    log = Log("INFO", NAMESPACE, "stack-predict")
    log.request(response, "POST", time.perf_counter_ns(), "8f507cfc-xmpl-4697-b07a-ac58fc914c95")
    line = capsys.readouterr().out
    assert "RunLatency" in line
    assert "_aws" not in line
    assert len(line) <= 300


def test_scoring_tells_its_stack_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The batch function's metrics, those of its second invocation as well, carry the function's name."""
    environment = {"AWS_LAMBDA_FUNCTION_NAME": "stack-score", "METRICS_NAMESPACE": NAMESPACE}
    with score_stack(tmp_path, monkeypatch, **environment) as stack:
        assert stack.handler is importlib.import_module("score")
        for key in ("a.jsonl", "b.jsonl"):
            stack.put(f"in/{key}", b"[1, 2, 3, 4]\n" * 200 + b"[1]\n")
            stack.invoke({"input": f"s3://data/in/{key}", "output": "s3://data/predictions/"})
    lines = [line for line in capsys.readouterr().out.splitlines() if "CloudWatchMetrics" in line]
    assert len(lines) == 2
    for line in lines:
        assert json.loads(line)["FunctionName"] == "stack-score"
        assert all("FunctionName" in names for sets in _emitted(line).values() for names in sets)
