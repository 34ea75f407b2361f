"""`litelambda deploy`: what it sets, what it keeps, and what it refuses, against a CloudFormation with a stack."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from moto.cloudformation.models import cloudformation_backends

from litelambda.cli.main import main
from litelambda.commands import deploy
from litelambda.common.paths import TEMPLATE
from litelambda_serving import objects
from support.cloudformation import Evaluator, load
from support.golden_store import golden, publish
from support.mocked_aws import mock_aws

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

SAM = """#!/bin/sh
here=$(dirname "$0")
for argument; do printf '%s\\n' "$argument"; done >"$here/call"
folder=${3%/template.yaml}
cp -R "${folder%/infra/scoring.yaml}" "$here/seen"
[ ! -e "$here/fails" ]
"""
"""A command line that notes its arguments, a line each, copies the folder of the templates, and fails when asked."""


@pytest.fixture
def sam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A script in SAM's place, on an account without stacks; a file in the package's place: others test that."""

    def package(
        architecture: str,
        output: Path,
        function: str,
        parts: Sequence[str],
        *,
        code: Path | None,
        access_policy: Path | None,
    ) -> SimpleNamespace:
        (output / "function").mkdir()
        (output / "function" / f"{function}.py").write_text(
            " ".join([architecture, *parts, *(f"{file}" for file in (code, access_policy) if file)])
        )
        return SimpleNamespace(directory=output / "function", notes=("no bytecode",))

    monkeypatch.setattr(deploy, "package", package)
    script = tmp_path / "sam"
    script.write_text(SAM)
    script.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
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
        StackName="litelambda",
        TemplateBody=json.dumps(template),
        Parameters=given,
        Tags=[{"Key": "team", "Value": "fruit"}, {"Key": "stage", "Value": "old"}],
    )


def _call(sam: Path) -> list[str]:
    return (sam.parent / "call").read_text().splitlines()


def _overrides(sam: Path) -> list[str]:
    call = _call(sam)
    return call[call.index("--parameter-overrides") + 1 :]


def test_a_first_deployment_has_the_defaults(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Without a stack it packages for the template's architecture, and passes on what is given and no more."""
    assert main(["deploy", "ModelName=fruit"]) == 0
    call = _call(sam)
    assert call[0] == "deploy"
    assert call[call.index("--stack-name") + 1] == "litelambda"
    assert _overrides(sam) == ["ModelName=fruit", "Architecture=arm64"]
    said = capfd.readouterr()
    assert "deploy: sets  ModelName=fruit\n" in said.out
    assert "deploy: note: no bytecode\n" in said.err


def test_what_is_not_named_is_kept_and_said(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """SAM gets none of the parameters that stay, so that it takes their previous values; each is shown."""
    _deployed(ModelName="fruit", ModelVersion="3", MemorySize="512", Architecture="x86_64")
    assert main(["deploy", "ModelVersion=4"]) == 0
    assert (sam.parent / "seen" / "functions" / "predict.py").read_text() == "x86_64"
    assert _overrides(sam) == ["ModelVersion=4", "Architecture=x86_64"]
    said = capfd.readouterr().out.splitlines()
    assert said[1:] == [
        "deploy: sets  ModelVersion=4 (was '3')",
        "deploy: keeps ModelName=fruit",
        "deploy: keeps Architecture=x86_64",
    ]


@pytest.mark.parametrize(
    ("given", "set_too"),
    [
        ("ModelName=digits", ["ModelVersion=latest", "ModelManifestSha256=''"]),
        ("ModelVersion=4", ["ModelManifestSha256=''"]),
        ("ModelName=fruit", []),
        ("MemorySize=512", []),
    ],
)
def test_another_model_is_not_pinned_to_the_digest_of_this_one(sam: Path, given: str, set_too: list[str]) -> None:
    """`deploy fruit` pins its version: another model or version that is named later could not be loaded with that."""
    _deployed(ModelName="fruit", ModelVersion="3", ModelManifestSha256="0" * 64, Architecture="arm64")
    assert main(["deploy", given]) == 0
    assert _overrides(sam) == [given, *set_too, "Architecture=arm64"]


def test_tags_are_set_and_the_others_stay(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """SAM is given all of them, since it would take away those that it is not given; what is no tag is refused."""
    assert main(["deploy"]) == 0
    assert "--tags" not in _call(sam)
    _deployed(ModelName="fruit")
    assert main(["deploy", "--tag", "stage=test=1", "--tag", "owner=7 8"]) == 0
    call = _call(sam)
    tags = call[call.index("--tags") + 1 : call.index("--parameter-overrides")]
    assert sorted(tags) == ["owner='7 8'", "stage=test=1", "team=fruit"]
    for tag in ("stage", "=x", "aws:stage=x"):
        assert main(["deploy", "--tag", tag]) == 2
        assert "expected key=value" in capfd.readouterr().err


def test_the_parts_of_the_package_are_kept(sam: Path) -> None:
    """PackageWith is what is packaged, at the first deployment and at every later one that does not name it."""
    packaged = sam.parent / "seen" / "functions" / "predict.py"
    assert main(["deploy", "PackageWith=images"]) == 0
    assert packaged.read_text() == "arm64 images"
    assert _overrides(sam) == ["PackageWith=images", "Architecture=arm64"]
    _deployed(PackageWith="images", Architecture="x86_64")
    shutil.rmtree(sam.parent / "seen")
    assert main(["deploy", "ModelVersion=4"]) == 0
    assert packaged.read_text() == "x86_64 images"
    shutil.rmtree(sam.parent / "seen")
    assert main(["deploy", "PackageWith=nothing"]) == 0
    assert packaged.read_text() == "x86_64"


def test_an_access_policy_stays_in_force(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The file comes with the parameter that makes the function ask for it; without the file nothing is deployed."""
    packaged = sam.parent / "seen" / "functions" / "predict.py"
    assert main(["deploy", "--access-policy", "who.json"]) == 0
    assert packaged.read_text() == "arm64 who.json"
    assert _overrides(sam) == ["Architecture=arm64", "AccessPolicy=packaged"]
    (sam.parent / "call").unlink()
    _deployed(AccessPolicy="packaged")
    assert main(["deploy", "ModelVersion=4"]) == 2
    assert "AccessPolicy=packaged: give --access-policy FILE, or AccessPolicy=none" in capfd.readouterr().err
    assert not (sam.parent / "call").exists()
    shutil.rmtree(sam.parent / "seen")
    assert main(["deploy", "AccessPolicy=none"]) == 0
    assert _overrides(sam) == ["AccessPolicy=none", "Architecture=arm64"]
    assert main(["deploy", "--function", "score", "--access-policy", "who.json"]) == 2
    assert "--access-policy is for the HTTP API" in capfd.readouterr().err


def test_values_reach_sam_whole(sam: Path) -> None:
    """Empty values and values with spaces are quoted as SAM's own parser wants them."""
    assert main(["deploy", "ModelName=", "MetricsNamespace=a b"]) == 0
    assert _overrides(sam) == ["ModelName=''", "MetricsNamespace='a b'", "Architecture=arm64"]


@pytest.mark.parametrize("assignment", ["ModelNmae=fruit", "ModelName", "=fruit"])
def test_unknown_parameters_are_refused(sam: Path, capfd: pytest.CaptureFixture[str], assignment: str) -> None:
    """A parameter that the template has not, which SAM would drop without a word, ends it before anything is built."""
    assert main(["deploy", assignment]) == 2
    error = capfd.readouterr().err
    assert repr(assignment) in error
    assert "ModelName, ModelVersion" in error
    assert not (sam.parent / "call").exists()


@pytest.mark.parametrize("store", ["s3://example-models/models", ""])
def test_values_that_lambda_has_no_room_for_are_refused(
    sam: Path, capfd: pytest.CaptureFixture[str], store: str
) -> None:
    """The 256 characters of a version's description are counted as the template makes it, before anything is built."""
    key = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
    values = {"ModelStore": store, "ModelVersion": "7", "ModelManifestSha256": "0" * 64, "KmsKeyArn": key}
    made = Evaluator(load(TEMPLATE), {**values, "ModelName": "m"}).resolve(
        load(TEMPLATE)["Resources"]["PredictFunction"]["Properties"]["VersionDescription"]
    )
    made = made.replace("<ArtifactBucket>", "litelambda-artifactbucket-1a2b3c4d5e6f7")
    _deployed(**values)
    pins = ["ModelVersion=7", f"ModelManifestSha256={'0' * 64}"]
    room = 256 - len(made) + 1
    assert main(["deploy", f"ModelName={'m' * room}", *pins]) == 0
    (sam.parent / "call").unlink()
    assert main(["deploy", f"ModelName={'m' * (room + 1)}", *pins]) == 2
    error = capfd.readouterr().err
    assert "take 257 characters together, expected at most 256" in error
    assert f"ModelName ({room + 1})" in error
    assert not (sam.parent / "call").exists()


@pytest.mark.parametrize(("function", "name"), [("predict", "template.yaml"), ("score", "infra/scoring.yaml")])
def test_a_template_finds_what_it_names(sam: Path, function: str, name: str) -> None:
    """The package lies where the template has its code, and so do nested templates and the state machine."""
    assert main(["deploy", "--function", function, "--stack", "litelambda"]) == 0
    call = _call(sam)
    assert call[call.index("--template-file") + 1].endswith(name)
    named = sam.parent / "seen" / name
    paths = re.findall(r"^ +(?:CodeUri|TemplateURL|DefinitionUri): (\S+)$", named.read_text(), re.MULTILINE)
    assert len(paths) == {"predict": 7, "score": 2}[function]
    assert all((named.parent / path).exists() for path in paths)


def test_a_failure_of_sam_is_a_failure(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What fails in SAM fails here."""
    (sam.parent / "fails").touch()
    assert main(["deploy"]) == 1
    assert "sam deploy ended with exit code 1" in capfd.readouterr().err


def test_without_sam_it_says_what_to_install(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is no SAM command line nothing is asked or packaged."""
    monkeypatch.setenv("PATH", "")
    assert main(["deploy"]) == 2
    assert "`uv tool install aws-sam-cli`" in capfd.readouterr().err


def test_an_account_that_cannot_be_asked_is_no_empty_one(
    sam: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the stack cannot be read nothing is built: its parameters are not known."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_CLOUDFORMATION", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    assert main(["deploy"]) == 1
    assert "AWS cannot be asked for the stack litelambda" in capfd.readouterr().err
    assert not (sam.parent / "call").exists()


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
    assert main(["deploy", "ModelVersion=4"]) == 0
    output = capfd.readouterr().out
    assert "the stack litelambda, for the first time" in output
    assert "keeps ModelName" not in output


def test_a_dry_run_shows_what_a_model_would_set(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The change set has the model's pins, which are known before it is published, and the part that it needs."""
    text = {"x": {"kind": "text"}}
    digest = publish(sam.parent / "models", "tiny_int8", 3, format_version=2, preprocessing=text)
    options = ["--store", str(sam.parent / "models"), "--dry-run"]
    assert main(["deploy", "tiny_int8@latest", "MemorySize=1024", *options]) == 0
    assert "--no-execute-changeset" in _call(sam)
    pins = ["ModelName=tiny_int8", "ModelVersion=3", f"ModelManifestSha256={digest}"]
    assert _overrides(sam) == ["MemorySize=1024", "Architecture=arm64", "PackageWith=text", *pins]
    assert (sam.parent / "seen" / "functions" / "predict.py").read_text() == "arm64 text"
    assert "deploy: nothing was changed" in capfd.readouterr().out


KEY, OTHER = (f"arn:aws:kms:eu-west-1:123456789012:key/{digit * 8}" for digit in "12")


def test_an_encrypted_model_brings_its_key(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """The function may decrypt with the key that the manifest names; a plain model afterwards leaves that as it is."""
    publish(sam.parent / "models", "tiny_int8", 3, encryption={"key": KEY, "data_key": ""})
    publish(sam.parent / "models", "plain", data=golden("tiny_int8"))
    options = ["--store", str(sam.parent / "models"), "--dry-run"]
    for key, instead in ((OTHER, OTHER), ("", "no encryption")):
        assert main(["deploy", "tiny_int8", f"ModelKeyArn={key}", *options]) == 2
        assert f"is encrypted with {KEY}, expected {instead}: leave out" in capfd.readouterr().err
    _deployed(ModelKeyArn=OTHER)
    assert main(["deploy", "tiny_int8", *options]) == 0
    assert f"ModelKeyArn={KEY}" in _overrides(sam)
    assert f"may no longer decrypt with {OTHER}" in capfd.readouterr().err
    shutil.rmtree(sam.parent / "seen")
    assert main(["deploy", "plain", *options]) == 0
    assert not any(each.startswith("ModelKeyArn") for each in _overrides(sam))
    said = capfd.readouterr()
    assert f"deploy: keeps ModelKeyArn={OTHER}" in said.out
    assert "decrypt" not in said.err


def test_a_model_that_parameters_name_is_looked_at(
    sam: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its store can be read it brings its key too, and is refused as one that is given; else that is said."""
    monkeypatch.setattr(objects, "_s3", None)
    publish(sam.parent / "models", "tiny_int8", 3, encryption={"key": KEY, "data_key": ""})
    asked = ["deploy", "--function", "score", "ModelStore=s3://artifacts/models", "ModelName=tiny_int8"]
    assert main(asked) == 0
    assert not any(each.startswith("ModelKeyArn") for each in _overrides(sam))
    assert "tiny_int8@latest in s3://artifacts/models cannot be read from here" in capfd.readouterr().err
    s3 = boto3.client("s3", "us-east-1")
    s3.create_bucket(Bucket="artifacts")
    for path in (sam.parent / "models").rglob("*.*"):
        s3.upload_file(str(path), "artifacts", path.relative_to(sam.parent).as_posix())
    shutil.rmtree(sam.parent / "seen")
    assert main(asked) == 0
    assert f"ModelKeyArn={KEY}" in _overrides(sam)
    assert main([*asked, "ModelMinimumVersion=4"]) == 2
    assert "version 3 of tiny_int8 is older than version 4" in capfd.readouterr().err


def test_what_the_function_would_refuse_is_not_deployed(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A model that is unsigned where signatures are asked for, or too old, is refused, with the command to type."""
    store = sam.parent / "models"
    publish(store, "tiny_int8", 3)
    assert main(["keygen", str(sam.parent / "release.pem")]) == 0
    key = re.search(r"ModelPublicKey=\S+", capfd.readouterr().out)
    assert key is not None
    options = ["--store", str(store), "--dry-run"]
    for trusts in (key[0], "ModelMinimumVersion=tiny_int8=4"):
        assert main(["deploy", "tiny_int8", trusts, *options]) == 2
    said = capfd.readouterr().err
    assert "version 3 of tiny_int8 is older than version 4" in said
    assert not (sam.parent / "call").exists()
    command = re.search(r"`litelambda (sign .*) KEY.pem`", said)
    assert command is not None
    assert main([*command[1].split(), str(sam.parent / "release.pem")]) == 0
    for trusts, is_noted in ((key[0], False), ("MemorySize=512", True)):
        capfd.readouterr()
        assert main(["deploy", "tiny_int8", trusts, *options]) == 0
        assert ("tiny_int8:3 is signed, and" in capfd.readouterr().err) == is_noted
        shutil.rmtree(sam.parent / "seen")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["absent"], "has no alias 'latest'"),
        (["tiny_int8", "ModelVersion=2"], "leave out ModelVersion, or the model"),
        (["tiny_int8", "ModelStore=file:///var/task/models"], "models of the package are put into it"),
        (["tiny_int8", "--function", "score"], "the batch stack has no store"),
        (["tiny_int8", "ModelStore=s3://bucket/a/../b"], "in its prefix"),
        (["sealed"], "sealed:1 is encrypted with a key file, which a deployed function does not have"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_models_that_cannot_be_deployed_are_refused(
    sam: Path, capfd: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Before anything is built."""
    publish(sam.parent / "models", "tiny_int8")
    publish(sam.parent / "models", "sealed", data=golden("tiny_int8"), encryption={"key": "file", "data_key": ""})
    assert main(["deploy", *arguments, "--store", str(sam.parent / "models")]) != 0
    assert said in capfd.readouterr().err
    assert not (sam.parent / "call").exists()


def test_a_stack_whose_creation_failed_says_what_to_do(sam: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """CloudFormation would take no update of it."""
    _deployed(ModelName="fruit")
    backend = cloudformation_backends["123456789012"]["eu-west-1"]
    next(iter(backend.stacks.values())).status = "ROLLBACK_COMPLETE"
    assert main(["deploy"]) == 1
    assert "run `litelambda delete --stack litelambda`, then deploy again" in capfd.readouterr().err
    assert not (sam.parent / "call").exists()
