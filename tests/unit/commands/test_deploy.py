"""`make deploy`: what it sets, what it keeps, and what it refuses, against a CloudFormation with a deployed stack."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto import mock_aws

from litelambda.commands import deploy

if TYPE_CHECKING:
    from collections.abc import Iterator

SAM = """#!/bin/sh
for argument; do printf '%s\\n' "$argument"; done >>"$(dirname "$0")/calls"
echo >>"$(dirname "$0")/calls"
[ "$1" != "$(cat "$(dirname "$0")/fails" 2>/dev/null)" ]
"""
"""A command line that notes its arguments, a line each, and fails where it is told to."""


@pytest.fixture
def sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """SAM's place, taken by a script, on an account without stacks."""
    script = tmp_path / "sam"
    script.write_text(SAM)
    script.chmod(0o755)
    monkeypatch.setattr(deploy, "_SAM", script)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    with mock_aws():
        yield script


def _deployed(**parameters: str) -> None:
    template: dict[str, Any] = {
        "Parameters": {name: {"Type": "String"} for name in parameters},
        "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}},
    }
    given = [{"ParameterKey": name, "ParameterValue": value} for name, value in parameters.items()]
    boto3.client("cloudformation", "eu-west-1").create_stack(
        StackName="litelambda", TemplateBody=json.dumps(template), Parameters=given
    )


def _calls(sam: Path) -> list[list[str]]:
    text = (sam.parent / "calls").read_text()
    return [call.splitlines() for call in text.split("\n\n") if call]


def test_a_first_deployment_has_the_defaults(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a stack it builds for the template's architecture, and passes on what is given and no more."""
    assert deploy.main(["template.yaml", "litelambda", "ModelName=fruit"]) == 0
    build, deployment = _calls(sam)
    assert build[-2:] == ["--parameter-overrides", "Architecture=arm64"]
    assert deployment[deployment.index("--parameter-overrides") + 1 :] == ["ModelName=fruit", "Architecture=arm64"]
    assert deployment[deployment.index("--stack-name") + 1] == "litelambda"
    assert "deploy: sets  ModelName=fruit\n" in capfd.readouterr().out


def test_what_is_not_named_is_kept_and_said(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """SAM gets none of the parameters that stay, so that it takes their previous values; each is shown."""
    _deployed(ModelName="fruit", ModelVersion="3", MemorySize="512", Architecture="x86_64")
    assert deploy.main(["template.yaml", "litelambda", "ModelVersion=4"]) == 0
    build, deployment = _calls(sam)
    assert build[-1] == "Architecture=x86_64"
    assert deployment[deployment.index("--parameter-overrides") + 1 :] == ["ModelVersion=4", "Architecture=x86_64"]
    said = capfd.readouterr().out.splitlines()
    assert said[1:] == [
        "deploy: sets  ModelVersion=4 (was '3')",
        "deploy: keeps ModelName=fruit",
        "deploy: keeps Architecture=x86_64",
    ]


def test_values_reach_sam_whole(sam: Path) -> None:
    """Empty values and values with spaces are quoted as SAM's own parser wants them."""
    assert deploy.main(["template.yaml", "litelambda", "ModelName=", "MetricsNamespace=a b"]) == 0
    assert _calls(sam)[1][-3:] == ["ModelName=''", "MetricsNamespace='a b'", "Architecture=arm64"]


@pytest.mark.parametrize("assignment", ["ModelNmae=fruit", "ModelName", "=fruit"])
def test_unknown_parameters_are_refused(sam: Path, capfd: pytest.CaptureFixture[str], assignment: str) -> None:
    """A parameter that the template has not, which SAM would drop without a word, ends it before anything is built."""
    assert deploy.main(["template.yaml", "litelambda", assignment]) == 2
    error = capfd.readouterr().err
    assert repr(assignment) in error
    assert "ModelName, ModelVersion" in error
    assert not (sam.parent / "calls").exists()


@pytest.mark.parametrize(("command", "calls"), [("build", 1), ("deploy", 2)])
def test_a_failure_of_sam_is_a_failure(sam: Path, capfd: pytest.CaptureFixture[str], command: str, calls: int) -> None:
    """What fails in SAM fails here, and nothing is deployed that was not built."""
    (sam.parent / "fails").write_text(command)
    assert deploy.main(["template.yaml", "litelambda"]) == 1
    assert f"sam {command} ended with exit code 1" in capfd.readouterr().err
    assert len(_calls(sam)) == calls


def test_an_account_that_cannot_be_asked_is_no_empty_one(
    sam: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the stack cannot be read nothing is built: its parameters are not known."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert deploy.main(["template.yaml", "litelambda"]) == 1
    assert "AWS cannot be asked for the stack litelambda" in capfd.readouterr().err
    assert not (sam.parent / "calls").exists()


def test_a_declined_first_change_set_leaves_nothing_to_keep(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A stack in review has parameters, but was never deployed: it is a first time again."""
    template = {"Parameters": {"ModelName": {"Type": "String"}}, "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
    boto3.client("cloudformation", "eu-west-1").create_change_set(
        StackName="litelambda",
        ChangeSetName="first",
        ChangeSetType="CREATE",
        TemplateBody=json.dumps(template),
        Parameters=[{"ParameterKey": "ModelName", "ParameterValue": "fruit"}],
    )
    assert deploy.main(["template.yaml", "litelambda", "ModelVersion=4"]) == 0
    output = capfd.readouterr().out
    assert "the stack litelambda, for the first time" in output
    assert "keeps ModelName" not in output
