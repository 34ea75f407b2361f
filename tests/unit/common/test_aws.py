"""AWS as this machine's user reaches it: profiles, regions and refusals."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError

from litelambda.cli.main import main
from litelambda.common.aws import AwsError, aws_client, refusals_explained
from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.store.artifact_store import Store
from support.golden_store import publish
from support.moto_server import MotoServer

PROFILE = """[mine]
aws_access_key_id = key
aws_secret_access_key = secret
region = us-east-1
"""
KEY = "arn:aws:kms:eu-central-1:111122223333:key/1234"


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    """A machine whose credentials are in a profile alone, and nothing of this one's."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    (tmp_path / "credentials").write_text(PROFILE)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    yield monkeypatch
    os.environ.clear()
    os.environ.update(before)


def test_a_profile_reads_what_it_writes(machine: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With credentials in a profile alone a store in S3 is written, and read as the function reads it."""
    machine.setenv("AWS_PROFILE", "mine")
    publish(tmp_path / "models", "tiny_int8")
    with MotoServer() as server:
        machine.setenv("AWS_ENDPOINT_URL_S3", server.url)
        boto3.session.Session().client("s3").create_bucket(Bucket="bucket")
        store = Store("s3://bucket/models")
        folder = tmp_path / "models" / "tiny_int8"
        files = {"model.tflite": folder / "1" / "model.tflite"}
        store.publish("tiny_int8", 1, files, (folder / "1" / "manifest.json").read_bytes())
        store.set_alias("tiny_int8", "latest", 1)
        assert store.fetch("tiny_int8@latest").artifact == (folder / "1" / "model.tflite").read_bytes()


@pytest.mark.parametrize(
    "command",
    [
        ["models"],
        ["serve", "--port", "0"],
        ["alias", "m", "latest", "1"],
        ["predict", "m", "--input", "row.json"],
        ["score", "rows.jsonl", "out.jsonl", "--model", "m"],
        ["compare", "m:1", "m:2", "--data", "rows.jsonl"],
        ["sign", "m:1", "--key", KEY],
        ["verify", "m@latest", "--public-key", "key.pem"],
        ["decrypt", "m@latest", "model.tflite", "--output", "out"],
        ["audit"],
        ["drift", "rows.jsonl", "--model", "m"],
        ["replay", "rows.jsonl", "--model", "m"],
    ],
    ids=lambda command: command[0],
)
def test_an_unknown_profile_is_named(
    machine: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str], command: list[str]
) -> None:
    """In any command that takes a store, a profile that does not exist is one line that names it."""
    machine.setenv("AWS_PROFILE", "absent")
    machine.chdir(tmp_path)
    (tmp_path / "row.json").write_text("[1]")
    (tmp_path / "rows.jsonl").write_text("[1]\n")
    assert main([*command, "--store", "s3://bucket/models"]) in {1, 2}
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("litelambda: error: ")
    assert "The config profile (absent) could not be found" in line


def test_a_client_needs_a_region(machine: pytest.MonkeyPatch) -> None:
    """Without a region the message says where to set one; an ARN's region is a key's, whatever the profile has."""
    with pytest.raises(UsageError, match="no AWS region found: set AWS_DEFAULT_REGION"):
        aws_client("cloudformation")
    assert aws_client("kms", KEY.split(":")[3]).meta.region_name == "eu-central-1"


@pytest.mark.parametrize(
    ("error", "kind", "advice"),
    [
        (NoCredentialsError(), UsageError, "no AWS credentials found: run `aws configure`, or set AWS_PROFILE"),
        ("ExpiredToken", AwsError, "it failed: the credentials have expired: renew them (ExpiredToken)"),
        ("InvalidClientTokenId", AwsError, "it failed: AWS does not know these credentials: set those of this account"),
        ("AccessDenied", AwsError, "it failed: said (AccessDenied): ask for that right"),
        ("LimitExceededException", AwsError, "said (LimitExceededException): delete what is no longer needed"),
        ("ValidationError", AwsError, "it failed: said (ValidationError)"),
        (EndpointConnectionError(endpoint_url="https://x"), AwsError, "it failed: Could not connect"),
    ],
    ids=str,
)
def test_refusals_are_one_line_with_advice(error: Exception | str, kind: type[LitelambdaError], advice: str) -> None:
    """What botocore raises becomes one line that says what to do."""
    if isinstance(error, str):
        error = ClientError({"Error": {"Code": error, "Message": "said"}}, "DescribeStacks")
    with pytest.raises(kind) as raised, refusals_explained("it failed"):
        raise error
    assert advice in str(raised.value)
    assert "\n" not in str(raised.value)
