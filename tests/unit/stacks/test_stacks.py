"""`litelambda status`, `logs`, `rollback` and `delete`, against an AWS with a stack."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from litelambda.cli.main import main
from litelambda.stacks import logs, stack
from litelambda.stacks.stack import wait_while_busy
from litelambda.store.artifact_store import Store
from support import deployed
from support.mocked_aws import mock_aws

if TYPE_CHECKING:
    from collections.abc import Iterator

REQUEST = {
    "level": "INFO", "message": "request", "Route": "predict", "Model": "fruit", "Version": "3", "method": "POST",
    "status": 200, "Latency": 1.5, "cold_start": True, "InitLatency": 90.2,
}  # fmt: skip
FAILURE = {**REQUEST, "level": "ERROR", "status": 503}


@pytest.fixture(autouse=True)
def _account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An empty AWS account, whose stacks are asked again at once."""
    monkeypatch.setenv("AWS_DEFAULT_REGION", deployed.REGION)
    monkeypatch.setattr(stack, "_POLL_SECONDS", 0)
    with mock_aws():  # with credentials of its own
        yield


@pytest.fixture
def _stack(_account: None) -> None:
    """The stack litelambda."""
    deployed.deploy()


def _live() -> str:
    alias = deployed.client("lambda").get_alias(FunctionName=deployed.FUNCTION, Name="live")
    return str(alias["FunctionVersion"])


@pytest.mark.usefixtures("_stack")
def test_logs_are_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Requests are rows, other lines are shown as they are, and what Lambda writes around them is left out."""
    deployed.log("START RequestId: 1", REQUEST, {"level": "WARNING", "message": "slow", "ms": 3}, FAILURE, "plain")
    deployed.log("long ago", age_ms=3_600_000)
    assert main(["logs"]) == 0
    header, *rows = capsys.readouterr().out.splitlines()
    assert header.split() == ["TIME", "STATUS", "METHOD", "ROUTE", "MODEL", "MS", "INIT", "MS"]
    assert [row.split()[2:] for row in rows] == [
        ["200", "POST", "predict", "fruit:3", "1.5", "90"],
        ["WARNING", "slow", "ms=3"],
        ["503", "POST", "predict", "fruit:3", "1.5", "90"],
        ["plain"],
    ]
    assert main(["logs", "--errors", "--json"]) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == [FAILURE]


@pytest.mark.usefixtures("_stack")
def test_status_says_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    """Version, model, requests, cold starts and the month's cost come from Lambda, CloudWatch, logs and the prices."""
    deployed.log(REQUEST, FAILURE)
    deployed.measure("AWS/Lambda", "Invocations", 8.0)
    deployed.measure("AWS/Lambda", "Duration", 4000.0, 12_000.0)
    assert main(["status", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["version"] == "2"
    assert found["model"] == "fruit:3"
    assert found["store"] == "s3://artifacts/models"
    assert (found["requests"], found["cold_share"]) == (8, 0.25)
    assert [error["status"] for error in found["errors"]] == [503]
    # 16 s at 512 MiB are 8 GB-s, at 0.0000166667 USD each for x86_64; 8 requests at 0.20 USD a million.
    assert found["cost"]["gb_seconds"] == 8.0
    assert found["cost"]["usd"] == pytest.approx(8 * 0.0000166667 + 8 * 0.2e-6, rel=1e-4)
    assert main(["status"]) == 0
    said = capsys.readouterr().out
    assert "live is version 2, 512 MB, x86_64" in said
    assert "8 requests, cold starts 25.0%" in said


@pytest.mark.usefixtures("_stack")
def test_a_log_is_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line comes once, also one that came later than a newer one."""
    deployed.log("first")

    def write_more(_: float) -> None:
        deployed.log("late", age_ms=1000)

    monkeypatch.setattr(logs.time, "sleep", write_more)
    texts = (line.text for line in logs.read_log(deployed.FUNCTION, 0, follow=True))
    mine = (text for text in texts if text in {"first", "late"})
    assert [next(mine) for _ in range(3)] == ["first", "late", "late"]


@pytest.mark.usefixtures("_stack")
def test_code_is_rolled_back(capsys: pytest.CaptureFixture[str]) -> None:
    """The live alias goes to the version before, or to the one that is named, and says where it cannot go."""
    assert main(["rollback", "--json"]) == 0
    moved = json.loads(capsys.readouterr().out)
    assert moved == {"what": deployed.FUNCTION, "alias": "live", "before": 2, "after": 1}
    assert _live() == "1"
    assert main(["rollback"]) == 2
    assert "has no version before 1; it has 1, 2" in capsys.readouterr().err
    assert main(["rollback", "--to", "7"]) == 2
    assert main(["rollback", "--to", "2"]) == 0
    assert _live() == "2"


@pytest.mark.usefixtures("_stack")
def test_a_model_is_rolled_back(capsys: pytest.CaptureFixture[str]) -> None:
    """An alias of a model goes to the version of it before, in the stack's own store; the function stays."""
    store = Store("s3://artifacts/models")
    for version in (1, 2, 4):
        manifest = json.dumps({"artifact": "model.tflite", "version": version}).encode()
        store.publish("fruit", version, {"model.tflite": b"flatbuffer"}, manifest)
    store.set_alias("fruit", "latest", 4)
    assert main(["rollback", "fruit"]) == 0
    assert store.read_aliases("fruit") == {"latest": 2}
    assert main(["rollback", "fruit@latest", "--to", "1"]) == 0
    assert store.read_aliases("fruit") == {"latest": 1}
    assert main(["rollback", "fruit"]) == 2
    assert "fruit has no version before 1; it has 1, 2, 4" in capsys.readouterr().err
    assert _live() == "2"


@pytest.mark.parametrize("command", [["status"], ["logs"], ["rollback"]], ids=lambda command: command[0])
def test_a_stack_that_is_not_there_is_named(capsys: pytest.CaptureFixture[str], command: list[str]) -> None:
    """With the region in which it was looked for."""
    assert main([*command, "--stack", "absent"]) == 2
    assert "the stack absent does not exist in us-east-1" in capsys.readouterr().err


@pytest.mark.usefixtures("_stack")
def test_a_busy_stack_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """What an interrupted deployment began is waited for, and said once."""
    states = iter(["UPDATE_IN_PROGRESS", "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "UPDATE_COMPLETE"])
    client = stack.aws_client("cloudformation")
    describe = client.describe_stacks

    def described(**arguments: Any) -> Any:
        answer = describe(**arguments)
        answer["Stacks"][0]["StackStatus"] = next(states)
        return answer

    monkeypatch.setattr(client, "describe_stacks", described)
    monkeypatch.setattr(stack, "aws_client", lambda _service: client)
    said: list[str] = []
    found = wait_while_busy("litelambda", said.append)
    assert found is not None
    assert found.status == "UPDATE_COMPLETE"
    assert said == ["waits: CloudFormation is busy with the stack litelambda (UPDATE_IN_PROGRESS)"]


@pytest.mark.usefixtures("_stack")
def test_a_stack_is_deleted_when_that_is_confirmed(capsys: pytest.CaptureFixture[str]) -> None:
    """It says what stays, asks for --yes where no one can be asked, and is done when it is gone; again is nothing."""
    assert main(["delete"]) == 2
    said = capsys.readouterr()
    assert said.out == "delete: stays: AWS::S3::Bucket artifacts\n"
    assert "give --yes" in said.err
    assert main(["delete", "--yes"]) == 0
    assert "the stack litelambda is gone" in capsys.readouterr().out
    assert main(["delete", "--yes"]) == 0
    assert "the stack litelambda does not exist" in capsys.readouterr().err
