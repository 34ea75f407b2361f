"""The Distributed Map state machine, executed by moto with the real handler as its Lambda function."""

from __future__ import annotations

import io
import json
import re
import uuid
from unittest.mock import patch

import boto3
import numpy as np
import pytest
from moto.awslambda_simple.models import LambdaSimpleBackend
from moto.core.config import default_user_config
from moto.stepfunctions.parser.asl.component.state.exec.execute_state import ExecutionState
from moto.stepfunctions.parser.asl.component.state.exec.state_map.state_map import StateMap
from moto.stepfunctions.parser.asl.component.state.exec.state_task.state_task import StateTask

from litelambda.cli.main import main
from litelambda.commands.score import ScoreResult
from litelambda.common.paths import PROJECT
from support.score_stack import BUCKET, score_stack
from support.scoring_files import as_jsonl, expected, make_rows, read_jsonl
from support.waiting import wait_until

MACHINE = "arn:aws:states:eu-west-1:123456789012:stateMachine:score"
_SUBSTITUTIONS = {
    "ScoreFunctionArn": "arn:aws:lambda:eu-west-1:123456789012:function:score",
    "ShardBytes": "2000",
    "MaxConcurrency": "4",
    "ToleratedFailurePercentage": "50",
}


def definition(**changes: str) -> str:
    """The state machine as CloudFormation would fill it in, its pauses shortened."""
    text = (PROJECT / "infra" / "scoring.asl.json").read_text(encoding="utf-8")
    values = {**_SUBSTITUTIONS, **changes}
    text = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], text)
    return re.sub(r'"IntervalSeconds": \d+, "MaxAttempts": \d+', '"IntervalSeconds": 1, "MaxAttempts": 3', text)


@pytest.fixture
def limits(monkeypatch):
    """What moto leaves out: the 256 KiB that a task's or a map's answer may have, which no `States.ALL` catches.

    The answer counts before any path makes it less; a map's is held against the limit as if its shards were 5,000.

    Source: Step Functions' "Service quotas" and "Handling errors in Step Functions workflows".
    """

    def limited(original):
        def evaluate(self, env):
            original(self, env)
            answer = env.stack[-1]
            self._verify_size_quota(env, answer * (5000 // len(answer)) if isinstance(self, StateMap) else answer)

        return evaluate

    for kind in (StateMap, StateTask):
        monkeypatch.setattr(kind, "_eval_execution", limited(kind._eval_execution))
    handle = ExecutionState._handle_catch

    def handle_catch(self, env, failure_event):
        if failure_event.error_name.error_name == "States.DataLimitExceeded":
            self._handle_uncaught(env, failure_event)
        handle(self, env, failure_event)

    monkeypatch.setattr(ExecutionState, "_handle_catch", handle_catch)


@pytest.fixture
def stack(tmp_path, monkeypatch, limits):
    monkeypatch.setattr("litelambda_serving.objects.s3_requests._ATTEMPTS", 1)
    monkeypatch.setitem(default_user_config, "stepfunctions", {"execute_state_machine": True})
    monkeypatch.setitem(default_user_config, "lambda", {"use_docker": False})
    with score_stack(tmp_path, monkeypatch) as made:

        def invoke(_self, function_name, qualifier, body, headers, response_headers):
            try:
                return json.dumps(made.invoke(json.loads(body)))
            except Exception as error:  # noqa: BLE001 - as the runtime client reports it
                response_headers["x-amz-function-error"] = "Unhandled"
                return json.dumps({"errorType": type(error).__name__, "errorMessage": str(error)})

        trust = {"Version": "2012-10-17", "Statement": []}
        iam = boto3.client("iam")
        role = iam.create_role(RoleName="score", AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
        boto3.client("lambda").create_function(
            FunctionName="score", Runtime="python3.13", Role=role, Handler="score.handler", Code={"ZipFile": b"unused"}
        )
        with patch.object(LambdaSimpleBackend, "invoke", invoke):
            yield made


def create(changes=None, text="") -> str:
    client = boto3.client("stepfunctions")
    role = "arn:aws:iam::123456789012:role/machine"
    text = text or definition(**(changes or {}))
    made = client.create_state_machine(name="score", definition=text, roleArn=role)
    return made["stateMachineArn"]


def execute(machine, request):
    """Run it to its end."""
    client = boto3.client("stepfunctions")
    name = uuid.uuid4().hex  # moto makes none
    arn = client.start_execution(stateMachineArn=machine, name=name, input=json.dumps(request))["executionArn"]
    wait_until(lambda: client.describe_execution(executionArn=arn)["status"] != "RUNNING")
    return client.describe_execution(executionArn=arn)


def summary_of(stack, state):
    return json.loads(stack.get(json.loads(state["output"])["summary"].removeprefix(f"s3://{BUCKET}/")))


def merged(stack, summary):
    """All predictions of a run, in the order of its shards."""
    keys = [part["url"].removeprefix(f"s3://{BUCKET}/") for part in summary["parts"]]
    return np.array([line["prediction"] for key in keys for line in read_jsonl(stack.get(key))], np.float32)


def npy(rows) -> bytes:
    stream = io.BytesIO()
    np.save(stream, rows)
    return stream.getvalue()


def test_shards_of_one_prefix_add_up(stack):
    """Over 50 shards of text and arrays, some of them throttled at first: every row is in one part, once."""
    text, array, small = make_rows(1200, seed=1), make_rows(900, seed=2), make_rows(3, seed=3)
    stack.put("big/a.jsonl", as_jsonl(text))
    stack.put("big/b.npy", npy(array))
    stack.put("big/c.jsonl", as_jsonl(small))
    stack.put("big/ignored.txt", b"no rows")
    throttled = []

    def fault(operation, key):
        if operation == "GetObject" and key.startswith("big/") and len(throttled) < 5:
            throttled.append(key)
            return 503
        return None

    stack.fault = fault
    state = execute(create(), {"input": f"s3://{BUCKET}/big/", "output": f"s3://{BUCKET}/runs/"})
    assert state["status"] == "SUCCEEDED", state
    assert len(throttled) == 5
    summary = summary_of(stack, state)
    assert summary["output"]["num_shards"] == len(summary["parts"]) >= 50
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (2103, 2103, 0)
    assert sum(summary["predictions"]["probabilities"]["classes"].values()) == 2103
    np.testing.assert_array_equal(merged(stack, summary), expected(np.concatenate([text, array, small])))


def test_a_run_with_failing_shards(stack):
    """Shards that cannot be scored are listed with their reasons; all others are there and add up."""
    rows = make_rows(3)
    for index in range(60):
        bad = index % 10 == 3
        stack.put(f"many/{index:02d}.jsonl", b"nonsense\n" if bad else as_jsonl(rows))
    machine = create()
    state = execute(machine, {"input": f"s3://{BUCKET}/many/", "output": f"s3://{BUCKET}/runs/"})
    (key,) = [key for key in stack.list("runs/") if re.fullmatch(r"runs/\w+/summary.json", key)]
    summary = json.loads(stack.get(key))
    assert (len(summary["parts"]), len(summary["failed"])) == (54, 6)
    assert {failure["error"] for failure in summary["failed"]} == {"TooManyBadRowsError"}
    assert (summary["rows_in"], summary["rows_out"]) == (162, 162)
    assert len(merged(stack, summary)) == 162
    # moto does not know tolerated failures: it fails the map, whose catch leads here.
    assert state["status"] in {"SUCCEEDED", "FAILED"}
    if state["status"] == "FAILED":
        assert state["error"] == "TooManyShardsFailed"
        assert key in state["cause"]

    # Mended, and started again: a new run, since the input is another; what was good is scored again under its name.
    for index in range(3, 60, 10):
        stack.put(f"many/{index:02d}.jsonl", as_jsonl(rows))
    state = execute(machine, {"input": f"s3://{BUCKET}/many/", "output": f"s3://{BUCKET}/runs/"})
    assert state["status"] == "SUCCEEDED"
    assert summary_of(stack, state)["rows_out"] == 180


def test_starting_a_run_again_scores_nothing_twice(stack):
    """The same input and model are the same run: its shards are found done."""
    stack.put("big/a.jsonl", as_jsonl(make_rows(300)))
    machine, request = create(), {"input": f"s3://{BUCKET}/big/a.jsonl", "output": f"s3://{BUCKET}/runs/"}
    first = summary_of(stack, execute(machine, request))
    written = {key: stack.s3.head_object(Bucket=BUCKET, Key=key)["LastModified"] for key in stack.list("runs/")}
    stack.calls.clear()
    second = summary_of(stack, execute(machine, request))
    assert first["rows_out"] == second["rows_out"] == 300
    puts = {key for operation, key in stack.calls if operation == "PutObject"}
    assert {key.rpartition("/")[2] for key in puts} == {"shards.json", "summary.json"}
    assert written.keys() == set(stack.list("runs/"))


def test_an_upload_starts_a_run(stack):
    """EventBridge's event of an uploaded object is a request, too; a shard longer than an invocation goes on."""
    rows = make_rows(900)
    etag = stack.put("bulk/a.jsonl", as_jsonl(rows))
    event = json.loads((PROJECT / "tests" / "events" / "eventbridge_object_created.json").read_text(encoding="utf-8"))
    event["detail"]["object"] = {"key": "bulk/a.jsonl", "size": 1, "etag": etag}
    stops = []

    def must_stop(run, limit):
        stops.append(run)
        return run._options.time_left is not None and len(stops) % 2 == 0

    with (
        patch("litelambda_serving.scoring.running.engine._Run._must_stop", must_stop),
        patch("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 4000),
        patch("litelambda_serving.objects.base.MIN_PART_BYTES", 6000),
        patch("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 5000),
    ):
        state = execute(create({"ShardBytes": "40000"}), event)
    assert state["status"] == "SUCCEEDED", state
    summary = summary_of(stack, state)
    assert summary["output"]["url"].startswith(f"s3://{BUCKET}/predictions/")
    np.testing.assert_array_equal(merged(stack, summary), expected(rows))
    assert stops


def test_shards_that_hand_something_up_would_end_a_large_run(stack):
    """The limit on what 5,000 shards may hand up together is there: with their answers, nothing would be merged."""
    stack.put("big/a.jsonl", as_jsonl(make_rows(60)))
    request = {"input": f"s3://{BUCKET}/big/", "output": f"s3://{BUCKET}/runs/"}
    assert '"OutputPath": null' in definition()
    state = execute(create(text=definition().replace('"OutputPath": null', '"OutputPath": "$"')), request)
    assert state["status"] == "FAILED"
    assert "exceeding the maximum number of bytes" in json.dumps(
        boto3.client("stepfunctions").get_execution_history(executionArn=state["executionArn"])["events"], default=str
    )
    assert not [key for key in stack.list("runs/") if re.fullmatch(r"runs/\w+/summary.json", key)]


def command(machine: str, source: str, output: str, *options: str) -> list[str]:
    where = ["--on", "aws", *(["--state-machine", machine] if machine else [])]
    return ["score", source, output, "--model", "tiny_int8", *where, *options]


def test_the_command_submits_and_waits(stack, monkeypatch, capsys):
    """`litelambda score --on aws` waits for the run in the state machine's own region, and prints what became of it."""
    monkeypatch.setattr("litelambda.commands.score_on_aws._POLL_SECONDS", 0.1)
    stack.put("big/a.jsonl", as_jsonl(make_rows(100)) + b"bad\n")
    stack.put("big/b.npy", npy(make_rows(20)))
    machine, folders = create(), (f"s3://{BUCKET}/big/", f"s3://{BUCKET}/runs/")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "us-east-1")
    assert main(command(machine, *folders, "--tolerate", "0.5", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert (result["rows_out"], result["rows_bad"], result["failed"]) == (120, 1, 0)
    assert main(command(machine, *folders, "--tolerate", "0.5")) == 0
    num_shards = result["output"]["num_shards"]
    assert capsys.readouterr().out.splitlines() == [
        f"120 of 121 rows scored by tiny_int8 version 1 in {num_shards} shards",
        f"predictions: {result['output']['url']}",
        f"bad rows: 1, see {result['errors']}",
    ]
    assert main(command(machine, f"s3://{BUCKET}/nothing/", folders[1])) == 1
    assert "FAILED" in capsys.readouterr().err


def test_a_run_with_failed_shards_says_so():
    """What a run's summary has, and what it has not, is printed; how many shards failed among it."""
    summary = {
        "rows_in": 1000, "rows_out": 1000, "rows_bad": 0, "model": {"name": "m", "version": 2}, "failed": 3,
        "output": {"url": "s3://b/r/", "num_shards": 60}, "errors": None, "parts": 57, "summary": "s3://b/r/summary.json",
    }  # fmt: skip
    assert ScoreResult.of(summary).describe().splitlines() == [
        "1,000 of 1,000 rows scored by m version 2 in 60 shards",
        "predictions: s3://b/r/",
        "failed shards: 3, see s3://b/r/summary.json",
    ]


@pytest.mark.parametrize(
    ("machine", "source", "output", "options", "message"),
    [
        (MACHINE, "rows.jsonl", "s3://a/r/", [], "takes s3:// URLs"),
        (MACHINE, "s3://a/b", "s3://a/c.jsonl", [], "give a prefix"),
        ("", "s3://a/b", "s3://a/c/", [], "--state-machine ARN"),
        ("score", "s3://a/b", "s3://a/c/", [], "'score' is not arn:aws:states:REGION"),
        ("arn:aws:lambda:eu-west-1:1:function:score", "s3://a/b", "s3://a/c/", [], "is not arn:aws:states:REGION"),
        (MACHINE, "s3://a/b", "s3://a/c/", ["--force"], "--on aws does not take --force:"),
        (MACHINE, "s3://a/b", "s3://a/c/", ["--workers", "3", "--store", "s3://a/s"], "not take --workers, --store:"),
        (MACHINE, "s3://a/b", "s3://a/c/", ["--on", "local"], "--on local does not take --state-machine:"),
    ],
)
def test_what_cannot_be_submitted(capsys, machine, source, output, options, message):
    """Options that would be ignored are refused by name, as is all else that makes no sense: exit status 2."""
    assert main(command(machine, source, output, *options)) == 2
    assert message in capsys.readouterr().err
