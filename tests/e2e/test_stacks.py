"""Both stacks on an emulator, with the commands of docs/: deployed, changed by their parameters alone, and used."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda.common.paths import PROJECT
from support.emulator import Emulator, needs_emulator
from support.golden_store import golden, publish
from support.handler_client import capture
from support.markdown import read_examples
from support.pages import DOCS, STACKS, examples_for, name_of, pages_for
from support.reader import Reader
from support.sam import HERE, needs_sam
from support.scoring_files import as_jsonl, expected, make_rows, read_jsonl

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [needs_sam, needs_emulator, pytest.mark.slow]

ACCESS, CAPTURE, DEPLOY, SCORING = (
    DOCS / "how-to" / f"{name}.md" for name in ("access", "capture", "deploy", "batch-scoring")
)
ORIGIN = "https://app.example.com"
ROWS = make_rows(20_000)
"""Of several megabytes in JSON: a bulk run cuts them into shards."""
SCORE_TIMEOUT_S = 240


@pytest.fixture(scope="module")
def emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulator]:
    """A running emulator."""
    emulator = Emulator(tmp_path_factory.mktemp("emulator"))
    yield emulator
    emulator.close()


def _outputs(emulator: Emulator, stack: str) -> dict[str, str]:
    (found,) = emulator.client("cloudformation").describe_stacks(StackName=stack)["Stacks"]
    return {each["OutputKey"]: each["OutputValue"] for each in found["Outputs"]}


def _live(emulator: Emulator, function: str) -> dict[str, Any]:
    """The configuration that the API calls."""
    configuration: dict[str, Any] = emulator.client("lambda").get_function_configuration(
        FunctionName=function, Qualifier="live"
    )
    return configuration


@pytest.fixture(scope="module")
def key(emulator: Emulator) -> str:
    """The ARN of a customer-managed key, which both stacks are under."""
    return str(emulator.client("kms").create_key()["KeyMetadata"]["Arn"])


def _let_decrypt(emulator: Emulator, function: str, key: str) -> None:
    """Let a function's role use the key in any context: the emulator knows none, which the template asks for.

    `tests/integration/test_iam.py` has a function decrypt under that condition.
    """
    role = emulator.client("lambda").get_function_configuration(FunctionName=function)["Role"].rpartition("/")[2]
    statement = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": key}
    document = json.dumps({"Version": "2012-10-17", "Statement": [statement]})
    emulator.client("iam").put_role_policy(RoleName=role, PolicyName="emulator", PolicyDocument=document)


@pytest.fixture(scope="module")
def api(emulator: Emulator, key: str, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The HTTP stack's outputs, what deploying a model of a local store said, and the version before it."""
    emulator.run(f'make deploy PARAMETERS="Architecture={HERE} CorsAllowOrigin={ORIGIN} KmsKeyArn={key}"')
    outputs = _outputs(emulator, "litelambda")
    # The bucket refuses plain HTTP, and the emulator speaks no other.
    emulator.client("s3").delete_bucket_policy(Bucket=outputs["ArtifactBucket"])
    _let_decrypt(emulator, outputs["FunctionName"], key)
    before = _live(emulator, outputs["FunctionName"])["Version"]
    folder = tmp_path_factory.mktemp("local")
    model = f"tests/golden/tiny_int8.tflite --name fruit --store {folder / 'models'} --encrypt {key}"
    done = emulator.run(f".venv/bin/litelambda import {model} --json 2>&1 | grep digest")
    digest = re.search(r"[0-9a-f]{64}", done)
    assert digest is not None
    (shown,) = examples_for(PROJECT / "README.md", STACKS)
    said = emulator.run(shown.command, folder=folder)
    return {**outputs, "digest": digest[0], "said": said, "before": before}


@pytest.fixture(scope="module")
def scoring(emulator: Emulator, api: dict[str, str], key: str) -> dict[str, str]:
    """The batch stack's outputs."""
    store = f"ModelStore=s3://{api['ArtifactBucket']}/models ModelName=fruit"
    emulator.run(f'make deploy-scoring PARAMETERS="Architecture={HERE} {store} ShardBytes=1048576 KmsKeyArn={key}"')
    outputs = _outputs(emulator, "litelambda-scoring")
    _let_decrypt(emulator, outputs["ScoreFunctionName"], key)
    s3 = emulator.client("s3")
    s3.delete_bucket_policy(Bucket=outputs["DataBucket"])
    # The emulator answers a range of a version with the whole of it.
    s3.put_bucket_versioning(Bucket=outputs["DataBucket"], VersioningConfiguration={"Status": "Suspended"})
    # It keeps the number as CloudFormation's text, which its poller cannot compare.
    functions = emulator.client("lambda")
    (mapping,) = functions.list_event_source_mappings(FunctionName=outputs["ScoreFunctionName"])["EventSourceMappings"]
    scaling = {"MaximumConcurrency": int(mapping["ScalingConfig"]["MaximumConcurrency"])}
    functions.update_event_source_mapping(UUID=mapping["UUID"], ScalingConfig=scaling)
    return outputs


def _predict(emulator: Emulator, api: dict[str, str], *, signed: bool) -> tuple[int, dict[str, Any]]:
    body = json.dumps({"instances": ROWS[:2].tolist()}).encode()
    path = "/v1/models/fruit:predict"
    status, _, answer = emulator.call(api["ApiUrl"], "POST", path, body, signed=signed)
    return status, json.loads(answer)


def test_a_deployed_api_predicts(emulator: Emulator, api: dict[str, str]) -> None:
    """A published model answers a signed request through the API as the runtime does; an unsigned one is refused."""
    status, answer = _predict(emulator, api, signed=True)
    assert status == 200
    np.testing.assert_array_equal(np.array(answer["predictions"], np.float32), expected(ROWS[:2]))
    assert _predict(emulator, api, signed=False)[0] == 403


def test_a_model_is_deployed_and_asked(emulator: Emulator, api: dict[str, str], key: str) -> None:
    """`deploy MODEL` publishes it, has the function decrypt and run it, and prints a curl that is answered likewise."""
    assert f"deploy: sets  ModelKeyArn={key} (was '')" in api["said"]
    role = _live(emulator, api["FunctionName"])["Role"].rpartition("/")[2]
    policies = emulator.client("iam").list_role_policies(RoleName=role)["PolicyNames"]
    documents = [emulator.client("iam").get_role_policy(RoleName=role, PolicyName=name) for name in policies]
    assert [key] == [
        each["Resource"]
        for document in documents
        for each in document["PolicyDocument"]["Statement"]
        if each.get("Sid") == "DecryptModels"
    ]
    assert f"deploy: published fruit:1 ({api['digest'][:12]}…)" in api["said"]
    predicted = re.search(r"fruit:predict answered in \d+ ms: (.*)", api["said"])
    shown = re.search(r"^  (curl .*)$", api["said"], re.MULTILINE)
    assert predicted is not None
    assert shown is not None
    there = f"-s {emulator.at(api['ApiUrl'])}"
    answer = json.loads(emulator.run(shown[1].replace(api["ApiUrl"], there) + " 2>/dev/null"))
    assert [answer["outputs"][0]["data"]] == json.loads(predicted[1])["predictions"]


def test_a_stack_is_looked_after(emulator: Emulator, api: dict[str, str]) -> None:
    """Its status, its log and its predictions are had by its name; its function goes back, and forth again."""
    asked = f"echo '{json.dumps(ROWS[0].tolist())}' | .venv/bin/litelambda predict fruit --stack litelambda --input -"
    answer = json.loads(emulator.run(f"{asked} 2>/dev/null"))
    np.testing.assert_array_equal(np.array(answer["predictions"], np.float32), expected(ROWS[:1]))
    status = json.loads(emulator.run(".venv/bin/litelambda status --json"))
    live = _live(emulator, api["FunctionName"])["Version"]
    assert (status["version"], status["model"].partition(",")[0]) == (live, "fruit:1")
    rows = emulator.run(".venv/bin/litelambda logs --since 1h").splitlines()
    assert any(row.split()[2:6] == ["200", "POST", "predict", "fruit:1"] for row in rows)
    emulator.run(".venv/bin/litelambda rollback")
    assert int(_live(emulator, api["FunctionName"])["Version"]) == int(live) - 1
    emulator.run(f".venv/bin/litelambda rollback --to {live}")
    assert _live(emulator, api["FunctionName"])["Version"] == live


def test_parameters_alone_make_a_version(emulator: Emulator, api: dict[str, str]) -> None:
    """Each deployment that changes parameters moves the alias, the others stay as they were, and both are said."""
    pinned = _live(emulator, api["FunctionName"])
    assert int(pinned["Version"]) == int(api["before"]) + 1
    assert pinned["Environment"]["Variables"]["MODEL_MANIFEST_SHA256"] == api["digest"]
    assert "deploy: sets  ModelName=fruit (was '')" in api["said"]
    assert f"deploy: keeps CorsAllowOrigin={ORIGIN}" in api["said"]
    status, _, answer = emulator.call(api["ApiUrl"], "GET", "/v1/models", signed=True)
    assert (status, "fruit" in answer.decode()) == (200, True)  # loaded at INIT: no request has named it

    said = emulator.run('make deploy PARAMETERS="MemorySize=1024 LogLevel=DEBUG"')
    larger = _live(emulator, api["FunctionName"])
    assert int(larger["Version"]) == int(pinned["Version"]) + 1
    assert larger["MemorySize"] == 1024
    variables = {**pinned["Environment"]["Variables"], "LOG_LEVEL": "DEBUG"}
    assert larger["Environment"]["Variables"] == variables
    assert f"deploy: keeps ModelManifestSha256={api['digest']}" in said
    assert _predict(emulator, api, signed=True)[0] == 200


def test_preflights_have_open_routes(emulator: Emulator, api: dict[str, str]) -> None:
    """With CORS on, each path has an OPTIONS route without authorization beside its authorized one.

    The emulator answers every OPTIONS request before it looks for a route, so the routes themselves are compared.
    """
    client = emulator.client("apigatewayv2")
    api_id = api["ApiUrl"].removeprefix("https://").split(".")[0]
    routes = {each["RouteKey"]: each["AuthorizationType"] for each in client.get_routes(ApiId=api_id)["Items"]}
    paths = {key.removeprefix("ANY ") for key in routes if key.startswith("ANY ")}
    assert routes == {**{f"ANY {path}": "AWS_IAM" for path in paths}, **{f"OPTIONS {path}": "NONE" for path in paths}}
    assert "/v1/{proxy+}" in paths


@pytest.mark.usefixtures("api", "scoring")
def test_a_customer_key_is_taken(emulator: Emulator, key: str) -> None:
    """Both stacks deploy under a customer-managed key, which their log groups name.

    The emulator keeps no bucket's encryption, and asks nobody whether a key may be used: see the unit tests.
    """
    groups = emulator.client("logs").describe_log_groups()["logGroups"]
    keys = {group["logGroupName"]: group.get("kmsKeyId") for group in groups}
    for name in ("lambda/litelambda-predict", "lambda/litelambda-scoring-score", "vendedlogs/apis/litelambda"):
        assert keys[f"/aws/{name}"] == key


def test_a_file_is_scored(emulator: Emulator, scoring: dict[str, str]) -> None:
    """An object in incoming/ goes through EventBridge, the queue and the function, whose role allows all it does."""
    bucket, s3 = scoring["DataBucket"], emulator.client("s3")
    s3.put_object(Bucket=bucket, Key="incoming/rows.jsonl", Body=as_jsonl(ROWS[:100]))
    (stack,) = emulator.client("cloudformation").describe_stacks(StackName="litelambda-scoring")["Stacks"]
    parameters = {each["ParameterKey"]: each["ParameterValue"] for each in stack["Parameters"]}
    assert parameters["ModelKeyArn"] == parameters["KmsKeyArn"]  # the encrypted model has brought it
    ending = r"\.[0-9a-f]{32}\.jsonl"
    (key,) = emulator.wait_for(lambda: _keys(s3, bucket, "predictions/incoming/", ending), SCORE_TIMEOUT_S)
    np.testing.assert_array_equal(_predictions(s3, bucket, [key]), expected(ROWS[:100]))


def test_a_run_is_merged(emulator: Emulator, scoring: dict[str, str]) -> None:
    """An object in bulk/ starts a run: its shards together are the whole input in order, and its summary says so."""
    bucket, s3 = scoring["DataBucket"], emulator.client("s3")
    machine = emulator.client("stepfunctions")
    s3.put_object(Bucket=bucket, Key="bulk/rows.jsonl", Body=as_jsonl(ROWS))

    def ended() -> list[dict[str, Any]]:
        runs = machine.list_executions(stateMachineArn=scoring["StateMachineArn"])["executions"]
        return [run for run in runs if run["status"] != "RUNNING"]

    (run,) = emulator.wait_for(ended, SCORE_TIMEOUT_S)
    described = machine.describe_execution(executionArn=run["executionArn"])
    assert described["status"] == "SUCCEEDED", described
    summary = json.loads(described["output"])
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (len(ROWS), len(ROWS), 0)
    parts = _keys(s3, bucket, "predictions/", r"/part-\d+\.jsonl")
    assert len(parts) == summary["parts"] > 1
    np.testing.assert_array_equal(_predictions(s3, bucket, parts), expected(ROWS))


@pytest.mark.parametrize("page", [DEPLOY, CAPTURE, SCORING], ids=name_of)
def test_pages_ask_the_stacks(
    emulator: Emulator, api: dict[str, str], scoring: dict[str, str], page: Path, tmp_path: Path
) -> None:
    """What the pages have deployed is asked as they say: by the stack's name, at its URL, and to score a prefix."""
    store = tmp_path / "models"
    publish(store, "fruit", data=golden("tiny_int8"))
    rows = ROWS[:5].tolist()
    capture(store, "fruit", tmp_path / "captured", rows)
    (tmp_path / "row.json").write_text(json.dumps(rows[0]))
    emulator.client("s3").put_object(Bucket=scoring["DataBucket"], Key="rows/rows.jsonl", Body=as_jsonl(ROWS[:5]))
    reader = Reader(tmp_path, emulator.environment)
    reader.done.append("litelambda deploy fruit")
    reader.variables["ApiUrl"] = emulator.at(api["ApiUrl"])
    reader.replaced = {
        "fruit:8": "fruit:1",
        "mnist_mlp:3": "fruit:1",
        "s3://data/": f"s3://{scoring['DataBucket']}/",
        "machine ARN": f"machine {scoring['StateMachineArn']}",
    }
    reader.follow(examples_for(page, STACKS))


def test_all_pages_for_stacks_are_asked() -> None:
    """The README is the deployment that all others begin with."""
    assert set(pages_for(STACKS)) == {PROJECT / "README.md", ACCESS, CAPTURE, DEPLOY, SCORING}


def test_an_update_that_fails_loses_nothing(emulator: Emulator, api: dict[str, str]) -> None:
    """Half-way it turns out that the domain's zone does not exist: all is as before, and the model still answers."""
    bucket, s3 = api["ArtifactBucket"], emulator.client("s3")
    objects = {each["Key"]: each["ETag"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]}
    before = _live(emulator, api["FunctionName"])
    certificate = "arn:aws:acm:eu-west-1:000000000000:certificate/missing"
    domain = f"DomainName=api.example.com DomainCertificateArn={certificate} HostedZoneId=Z1"
    said = emulator.run(f'make deploy PARAMETERS="MemorySize=2048 {domain}" 2>&1 || echo "ended with $?"')
    assert "UPDATE_ROLLBACK_COMPLETE" in said
    assert "ended with" in said
    assert {each["Key"]: each["ETag"] for each in s3.list_objects_v2(Bucket=bucket)["Contents"]} == objects
    after = _live(emulator, api["FunctionName"])
    assert (after["Version"], after["MemorySize"]) == (before["Version"], before["MemorySize"])
    s3.delete_bucket_policy(Bucket=bucket)
    assert _predict(emulator, api, signed=True)[0] == 200


def test_keys_open_a_rest_api(emulator: Emulator, api: dict[str, str], tmp_path: Path) -> None:
    """With API_KEY the stack's address is a REST API's, which lets keys through alone; last, since it stays so."""
    (shown,) = (each.command for each in read_examples(ACCESS) if "Authorization=API_KEY" in each.command)
    emulator.run(shown)
    outputs = _outputs(emulator, "litelambda")
    # A new bucket policy came with it, and the emulator speaks plain HTTP.
    emulator.client("s3").delete_bucket_policy(Bucket=outputs["ArtifactBucket"])
    assert outputs["ApiUrl"] != api["ApiUrl"]
    gateway = emulator.client("apigateway")
    (plan,) = gateway.get_usage_plans()["items"]
    assert plan["quota"] == {"limit": 10000, "period": "DAY"}
    key = gateway.get_api_key(apiKey=outputs["ApiKeyId"], includeValue=True)["value"]
    path = "/live/v1/models/fruit:predict"
    body = json.dumps({"instances": ROWS[:2].tolist()}).encode()
    headers = {"Content-Type": "application/json"}
    assert emulator.call(outputs["ApiUrl"], "POST", path, body, headers, signed=True)[0] == 403
    status, _, answer = emulator.call(
        outputs["ApiUrl"], "POST", path, body, {**headers, "x-api-key": key}, signed=False
    )
    assert status == 200
    np.testing.assert_array_equal(np.array(json.loads(answer)["predictions"], np.float32), expected(ROWS[:2]))

    reader = Reader(tmp_path, emulator.environment)
    reader.variables |= {"KEY": key, "ApiUrl": f"{emulator.at(outputs['ApiUrl'])}/live"}
    reader.follow(examples_for(ACCESS, STACKS))


def _keys(s3: Any, bucket: str, prefix: str, ending: str) -> list[str]:
    found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", ())
    return sorted(each["Key"] for each in found if re.search(ending + "$", each["Key"]))


def _predictions(s3: Any, bucket: str, keys: list[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
    lines = [line for key in keys for line in read_jsonl(s3.get_object(Bucket=bucket, Key=key)["Body"].read())]
    return np.array([line["prediction"] for line in lines], np.float32)


def test_only_signed_versions_are_served(emulator: Emulator, api: dict[str, str], tmp_path: Path) -> None:
    """An unsigned version that `latest` moves to is refused with a record; the signed one before it keeps serving."""
    store, private = f"s3://{api['ArtifactBucket']}/models", tmp_path / "release.pem"
    found = re.search(r"[A-Za-z0-9+/]{44}", emulator.run(f".venv/bin/litelambda keygen {private}"))
    assert found is not None
    emulator.run(f".venv/bin/litelambda sign fruit:1 --store {store} --key {private}")
    trusts = f"ModelVersion=latest ModelManifestSha256= AliasRefreshSeconds=0 ModelPublicKey={found[0]}"
    emulator.run(f'make deploy PARAMETERS="{trusts}"')
    assert _predict(emulator, api, signed=True)[0] == 200

    emulator.run(f".venv/bin/litelambda import tests/golden/tiny_int8.tflite --name fruit --store {store}")
    body = json.dumps({"instances": ROWS[:2].tolist()}).encode()

    def refused() -> bool:
        """Aliases are read again beside the requests: ask until that has happened."""
        path = "/v1/models/fruit:predict"
        status, headers, _ = emulator.call(api["ApiUrl"], "POST", path, body, signed=True)
        assert (status, headers.get("X-Model-Version")) == (200, "1")
        return '"action":"load","outcome":"refused","model":"fruit","version":2' in _lines(emulator, api)

    emulator.wait_for(refused, 60)
    assert refused()


def _lines(emulator: Emulator, api: dict[str, str]) -> str:
    """What the function has logged."""
    group = f"/aws/lambda/{api['FunctionName']}"
    events = emulator.client("logs").filter_log_events(logGroupName=group)["events"]
    return "\n".join(each["message"] for each in events)


def test_a_deleted_stack_leaves_its_models(emulator: Emulator, api: dict[str, str]) -> None:
    """`delete` names the buckets that stay, and they do; the rest is gone. The last test."""
    said = emulator.run(".venv/bin/litelambda delete --yes")
    assert f"delete: stays: AWS::S3::Bucket {api['ArtifactBucket']}" in said
    assert "delete: the stack litelambda is gone" in said
    buckets = {bucket["Name"] for bucket in emulator.client("s3").list_buckets()["Buckets"]}
    assert api["ArtifactBucket"] in buckets
    functions = emulator.client("lambda").list_functions()["Functions"]
    assert api["FunctionName"] not in {function["FunctionName"] for function in functions}
