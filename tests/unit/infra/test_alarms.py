"""Alarms and dashboards have metrics that exist, with the dimensions that they are published with, and all of them."""

from __future__ import annotations

import importlib
import io
import json
import re
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
from support.score_stack import score_stack

if TYPE_CHECKING:
    from pathlib import Path

NAMESPACE = "litelambda"
ALARMS, DASHBOARD, SCORING = (PROJECT / "infra" / f"{name}.yaml" for name in ("alarms", "dashboard", "scoring"))

Metric = tuple[str, str]
Emitted = dict[Metric, list[set[str]]]
"""Namespace and name of metrics, with the sets of dimensions that each is recorded by."""

# Names and dimensions as in AWS's documentation, by page.
DOCUMENTED = [
    # Lambda, "Types of metrics for Lambda functions"
    ("AWS/Lambda", "FunctionName", "Invocations Errors Throttles Duration ConcurrentExecutions"),
    # API Gateway, "Monitor CloudWatch metrics for HTTP APIs"
    ("AWS/ApiGateway", "ApiId", "4xx 5xx Count IntegrationLatency Latency DataProcessed"),
    # SQS, "Available CloudWatch metrics for Amazon SQS"
    ("AWS/SQS", "QueueName", "ApproximateAgeOfOldestMessage ApproximateNumberOfMessagesVisible"),
    ("AWS/SQS", "QueueName", "ApproximateNumberOfMessagesNotVisible"),
    # Step Functions, "Monitoring Step Functions metrics using Amazon CloudWatch"
    ("AWS/States", "StateMachineArn", "ExecutionsStarted ExecutionsSucceeded ExecutionsFailed ExecutionsTimedOut"),
    ("AWS/States", "StateMachineArn", "ExecutionsAborted ExecutionThrottled"),
]
OF_AWS: Emitted = {
    (namespace, name): [{dimension}] for namespace, dimension, names in DOCUMENTED for name in names.split()
}


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
    """The metrics of a template's dashboard, searched ones included, with the dimensions it asks for."""
    shown = []
    for widget in _widgets(path, **values):
        for metric in widget["properties"].get("metrics", ()):
            texts = [each for each in metric if isinstance(each, str)]
            if texts:
                shown.append(((texts[0], texts[1]), set(texts[2::2])))
            for expression in (each["expression"] for each in metric if "expression" in each):
                found = re.fullmatch(r"SEARCH\('\{([^,}]+),([^}]+)\} (.*)', '\w+', \d+\)", expression)
                assert found is not None, expression
                wanted = dict(re.findall(r'(\w+)="([^"]+)"', found[3]))
                shown.append(((found[1], wanted.pop("MetricName")), set(found[2].split(","))))
                assert set(wanted) <= set(found[2].split(","))
    return shown


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


def _request_line(capsys: pytest.CaptureFixture[str], **response: Any) -> str:
    log, began_ns = Log("INFO", NAMESPACE, "stack-predict"), time.perf_counter_ns()
    log.request(Response(200, b"", **response), "POST", began_ns, "id")
    return capsys.readouterr().out


def _emitted_lines(output: io.StringIO) -> Emitted:
    emitted: Emitted = {}
    for line in output.getvalue().splitlines():
        if "CloudWatchMetrics" in line:
            for metric, sets in _emitted(line).items():
                emitted[metric] = emitted.get(metric, sets)
                assert emitted[metric] == sets, metric
    return emitted


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """What the handler emits: in a cold start, for a model that a request loads, and with a shadow."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "m", 1, golden("tiny_int8"))
    publish(root, "m", 2, golden("tiny_int8"))
    publish(root, "other", 1, golden("tiny_int8"))
    set_aliases(root, {"latest": 1, "shadow": {"latest": 2}})
    with redirect_stdout(io.StringIO()) as output:
        handler = load_module(root, "m").handler
        for name in ("m", "other", "absent"):
            send(handler, "POST", f"/v1/models/{name}:predict", {"instances": [[0.1, 0.2, 0.3, 0.4]]})
    return _emitted_lines(output)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Emitted:
    """What the batch function emits: for a file with a bad row, and for one that cannot be scored."""
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as output,
        score_stack(tmp_path_factory.mktemp("scored"), patch, METRICS_NAMESPACE=NAMESPACE) as stack,
    ):
        stack.put("in/a.jsonl", b"[1, 2, 3, 4]\n" * 200 + b"[1]\n")
        stack.put("in/b.jsonl", b"[1]\n")
        stack.invoke({"input": "s3://data/in/a.jsonl", "output": "s3://data/predictions/"})
        with pytest.raises(InputError):
            stack.invoke({"input": "s3://data/in/b.jsonl", "output": "s3://data/predictions/"})
    return _emitted_lines(output)


@pytest.fixture(params=["predict", "score"])
def stack(request: pytest.FixtureRequest) -> tuple[Path, Path, Emitted]:
    """Each stack's templates with alarms and with a dashboard, and the metrics that its function emits."""
    if request.param == "predict":
        return ALARMS, DASHBOARD, request.getfixturevalue("served")
    return SCORING, SCORING, request.getfixturevalue("scored")


@pytest.mark.parametrize("namespace", [NAMESPACE, ""])
def test_alarms_and_dashboards_show_what_is_published(stack: tuple[Path, Path, Emitted], namespace: str) -> None:
    """Each metric of an alarm or a dashboard is AWS's or one of a real run's, and has a set of its dimensions."""
    alarms, dashboard, emitted = stack
    published = {**OF_AWS, **emitted}
    watched = {
        name: ((alarm["Namespace"], alarm["MetricName"]), {each["Name"] for each in alarm["Dimensions"]})
        for name, alarm in _alarms(alarms, MetricsNamespace=namespace).items()
        if namespace or alarm["Namespace"]  # without own metrics there are no alarms on them
    }
    assert watched
    for name, (metric, dimensions) in watched.items():
        assert dimensions in published[metric], name
    shown = _shown(dashboard, MetricsNamespace=namespace)
    assert ({metric[0] for metric, _ in shown} >= {namespace}) == bool(namespace)
    for metric, dimensions in shown:
        assert dimensions in published[metric], metric


def test_a_dashboard_shows_all_that_is_emitted(stack: tuple[Path, Path, Emitted]) -> None:
    """Every metric of a real run is in the dashboard of its stack."""
    _, dashboard, emitted = stack
    assert set(emitted) <= {metric for metric, _ in _shown(dashboard, MetricsNamespace=NAMESPACE)}


def test_every_metric_of_the_code_is_emitted(served: Emitted) -> None:
    """The code's table of metrics names those that requests have, by the same sets of dimensions, and no other."""
    table = {name: [set(names) for names in sets] for sets, metrics in METRICS for name in metrics}
    assert served == {(NAMESPACE, name): sets for name, sets in table.items()}


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
    assert set(outputs["Arns"]["Value"].split(",")) == {f"<{name}.Arn>" for name in _alarms(ALARMS)}
    parameters = load(TEMPLATE)["Resources"]["MonitoringDashboard"]["Properties"]["Parameters"]
    assert parameters["AlarmArns"] == {"Fn::GetAtt": "Alarms.Outputs.Arns"}
    assert {name: parameters[name] for name in ("FunctionName", "ApiId")} == {
        "FunctionName": {"Ref": "PredictFunction"},
        "ApiId": {"Ref": "HttpApi"},
    }


def _drift_line(capsys: pytest.CaptureFixture[str]) -> str:
    """The line of a full window, of a version with one feature."""
    baseline = {"features": [{"name": "age", "counts": [500, 500]}], "limits": [[50, 2.3]]}
    counter = SimpleNamespace(rows=60, document=baseline, take=lambda: [[30, 30]])
    servable = SimpleNamespace(drift=counter, manifest=SimpleNamespace(model="tiny", version=1))
    repository: Any = SimpleNamespace(loaded=lambda: [servable])
    Recorder({"DRIFT_WINDOW": "50"}, repository, Log("ERROR", NAMESPACE, "stack-predict")).after_response()
    return capsys.readouterr().out


def test_alarms_follow_the_function_of_their_stack() -> None:
    """The nested template is told the function's name, which is the dimension's value in the function's own lines."""
    parameters = load(TEMPLATE)["Resources"]["Alarms"]["Properties"]["Parameters"]
    assert parameters["FunctionName"] == {"Ref": "PredictFunction"}
    alarms = _alarms(ALARMS, MetricsNamespace=NAMESPACE, FunctionName="stack-predict")
    assert alarms["ServerErrors"]["Dimensions"] == [{"Name": "FunctionName", "Value": "stack-predict"}]
    assert alarms["ServerErrors"]["MetricName"] == "ServerError"


def test_drift_is_watched_where_it_is_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """The alarm is there with a window and metrics, on the metric of a window's line: half of a day's windows."""
    assert "InputsDrifted" not in _alarms(ALARMS, MetricsNamespace=NAMESPACE)
    assert "InputsDrifted" not in _alarms(ALARMS, MetricsNamespace="", DriftWindow="500")
    alarm = _alarms(ALARMS, MetricsNamespace=NAMESPACE, DriftWindow="500")["InputsDrifted"]
    assert (alarm["Statistic"], alarm["Period"], alarm["Threshold"]) == ("Average", 86400, 0.5)
    emitted = _emitted(_drift_line(capsys))
    assert {each["Name"] for each in alarm["Dimensions"]} in emitted[alarm["Namespace"], alarm["MetricName"]]
    template = load(ALARMS)
    outputs = Evaluator(template, {"MetricsNamespace": NAMESPACE, "DriftWindow": "500"}).resolve(template["Outputs"])
    assert "<InputsDrifted.Arn>" in outputs["Arns"]["Value"].split(",")


def test_every_way_to_fail_has_its_alarm() -> None:
    """The batch stack has an alarm for each way that a run, a message, a file or a row can fail."""
    alarms = _alarms(SCORING).values()
    assert {alarm["MetricName"] for alarm in alarms} == {
        *("ExecutionsFailed", "ExecutionsTimedOut", "ExecutionsAborted", "ExecutionThrottled", "Errors"),
        *("ApproximateNumberOfMessagesVisible", "ApproximateAgeOfOldestMessage", "FilesFailed", "RowsBad"),
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
