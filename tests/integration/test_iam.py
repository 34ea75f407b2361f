"""Roles and what they are for: each statement compared with the requests of a real run, both ways."""

from __future__ import annotations

import json
from contextlib import ExitStack
from functools import cache
from itertools import count
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import boto3
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from moto.iam.aws_managed_policies import aws_managed_policies_data
from moto.kms.utils import ECDSAPrivateKey

from litelambda.cli.main import main
from litelambda.common.paths import PROJECT, TEMPLATE
from litelambda_serving import objects
from litelambda_serving.scoring.errors import InputNotFoundError, TooManyBadRowsError
from litelambda_serving.scoring.running import engine
from support.cloudformation import load
from support.golden_store import GOLDEN
from support.handler_client import load_module, send
from support.iam import ACCOUNT, REGION, Call, Grant, grants, missing, recorded, unused
from support.moto_server import MotoServer
from support.score_stack import imported_score
from support.scoring_files import Context, as_jsonl, make_rows
from support.sqs_poller import Queues
from support.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

STORE = "s3://artifacts/models"
BUCKETS = ("artifacts", "captures", "data", "more-inputs", "more-outputs")
BODY = {"instances": [[0.1, 0.2, 0.3, 0.4]]}
Calls = dict[str, list[Call]]

# What AWS does with a role on its own: Lambda writes the log and takes the messages, S3 and SQS use their keys.
LAMBDAS_OWN = {
    action
    for name in ("AWSLambdaBasicExecutionRole", "AWSLambdaSQSQueueExecutionRole")
    for action in json.loads(aws_managed_policies_data)[name]["Document"]["Statement"][0]["Action"]
}


def is_on_behalf(grant: Grant) -> bool:
    """Whether AWS itself makes the calls that a statement allows."""
    return grant.action in LAMBDAS_OWN or "kms:ViaService" in str(grant.conditions)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Calls, dict[str, str]]]:
    """What each role called, and the ARNs of the keys: published, moved, read, served, and scored in two stacks."""
    calls: Calls = {}
    with pytest.MonkeyPatch.context() as patched, MotoServer() as server, patch.object(objects, "_s3", None):
        for name, value in {
            "AWS_ENDPOINT_URL": server.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }.items():
            patched.setenv(name, value)
        # moto does not implement MessageType=DIGEST, and hashes what is a digest already; AWS signs it as it is.
        patched.setattr(
            ECDSAPrivateKey,
            "sign",
            lambda key, message, _algorithm: key.private_key.sign(message, ec.ECDSA(Prehashed(hashes.SHA256()))),
        )
        s3, kms = boto3.client("s3"), boto3.client("kms")
        for bucket in BUCKETS:
            s3.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": REGION})
            s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
        keys = {
            "ModelKeyArn": kms.create_key()["KeyMetadata"]["Arn"],
            "SigningKeyArn": kms.create_key(KeySpec="ECC_NIST_P256", KeyUsage="SIGN_VERIFY")["KeyMetadata"]["Arn"],
        }
        with recorded() as calls["publisher"]:
            publish(keys)
        with recorded() as calls["mover"]:
            command("alias", "m", "stable", "1")
            command("alias", "m", "stable", "2")
        with recorded() as calls["reader"]:
            command("models")
            command(
                "decrypt", "m:2", "model.tflite.enc", "--output", str(tmp_path_factory.mktemp("out") / "model.tflite")
            )
        with recorded() as calls["predict"]:
            predict(patched, calls["predict"])
        calls["score"] = []
        score(patched, calls["score"])
        yield calls, keys


def command(*arguments: str) -> None:
    assert main([*arguments, "--store", STORE]) == 0


def publish(keys: dict[str, str]) -> None:
    """A version that is signed afterwards, twice, and one that is signed and encrypted and replaces the aliases."""
    model = str(GOLDEN / "tiny_int8.tflite")
    command("import", model, "--name", "m")
    for _ in range(2):
        command("sign", "m:1", "--key", keys["SigningKeyArn"])
    command("import", model, "--name", "m", "--encrypt", keys["ModelKeyArn"], "--sign", keys["SigningKeyArn"])


def predict(patched: pytest.MonkeyPatch, calls: list[Call]) -> None:
    """INIT out of the store, a prediction, a model and a version that are not there, lists, and a capture."""
    settings = {"MODEL_STORE": STORE, "CAPTURE_STORE": "s3://captures/kept", "CAPTURE_SECONDS": "0"}
    for name, value in settings.items():
        patched.setenv(name, value)
    module = load_module(PROJECT, "m", **settings)
    assert send(module.handler, "POST", "/v1/models/m:predict", BODY).status == 200
    assert send(module.handler, "POST", "/v1/models/missing:predict", BODY).status == 404
    assert send(module.handler, "GET", "/v1/models/m/versions/9").status == 404
    assert {each["name"] for each in send(module.handler, "POST", "/v2/repository/index").json()} == {"m"}
    wait_until(lambda: "s3:PutObject" in {call.action for call in calls})  # a capture is written in the background
    for name in settings:
        patched.delenv(name)


def score(patched: pytest.MonkeyPatch, calls: list[Call]) -> None:
    """Files of the stack's own bucket and of further ones, over several invocations; one that is not there, one bad."""
    is_short = [True]
    stops = count()

    def must_stop(run: Any, _limit: Any) -> bool:
        return is_short[0] and run._options.time_left is not None and next(stops) % 3 == 2

    patched.setattr(engine._Run, "_must_stop", must_stop)
    patched.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 8000)
    patched.setattr("litelambda_serving.objects.base.MIN_PART_BYTES", 6000)
    patched.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 5000)
    s3, queues = boto3.client("s3"), Queues(boto3.client("sqs"), "score")
    for name, value in {
        "MODEL_STORE": STORE,
        "MODEL_NAME": "m",
        "LOG_LEVEL": "ERROR",
        "METRICS_NAMESPACE": "",
        "POWERTOOLS_METRICS_NAMESPACE": "litelambda",
        "SCORE_QUEUE_URL": queues.url,
        "SCORE_OUTPUT": "s3://data/predictions/",
        "SCORE_INPUT_BUCKETS": "data,more-inputs",
        "SCORE_OUTPUT_BUCKETS": "data,more-outputs",
    }.items():
        patched.setenv(name, value)

    def invoke(event: dict[str, Any]) -> Any:
        with recorded() as found:
            try:
                return handler(event, Context())
            finally:
                calls.extend(found)

    with ExitStack() as ends:
        with recorded() as found:
            handler = ends.enter_context(imported_score()).handler
        calls.extend(found)
        for bucket, output in (("data", "s3://data/predictions/"), ("more-inputs", "s3://more-outputs/scored/")):
            good = as_jsonl(make_rows(1500))
            version = s3.put_object(Bucket=bucket, Key="good.jsonl", Body=good)["VersionId"]
            s3.put_object(Bucket=bucket, Key="bad.jsonl", Body=good + b"bad\n" * 500)
            is_short[0] = True
            queues.send({"input": f"s3://{bucket}/good.jsonl", "version_id": version, "output": output})
            assert queues.drain(invoke) > 1
            is_short[0] = False
            with pytest.raises(TooManyBadRowsError):
                invoke({"input": f"s3://{bucket}/bad.jsonl", "output": output})
            with pytest.raises(InputNotFoundError):
                invoke({"input": f"s3://{bucket}/none.jsonl", "output": output})
    assert queues.dead() == []


template = cache(load)


def granted(role: str, keys: dict[str, str]) -> set[Grant]:
    """What a role of one of the stacks may do, with every parameter set that gives it a right."""
    bucket_key = keys["ModelKeyArn"].replace("key/", "key/bucket-")
    roles = template(PROJECT / "infra" / "roles.yaml")
    if role == "predict":
        values = {"ModelKeyArn": keys["ModelKeyArn"], "KmsKeyArn": bucket_key, "CaptureStore": "s3://captures/kept"}
        return grants(template(TEMPLATE), "PredictRole", {"ModelStore": STORE, **values}, {})
    if role == "score":
        values = {
            "ModelStore": STORE,
            "ModelKeyArn": keys["ModelKeyArn"],
            "KmsKeyArn": bucket_key,
            "BucketKmsKeyArns": bucket_key,
            "InputBucketArns": "arn:aws:s3:::more-inputs",
            "OutputBucketArns": "arn:aws:s3:::more-outputs",
        }
        names = {"DataBucket.Arn": "arn:aws:s3:::data", "Queue.Arn": f"arn:aws:sqs:{REGION}:{ACCOUNT}:score"}
        return grants(template(PROJECT / "infra" / "scoring.yaml"), "ScoreRole", values, names)
    resource = {"publisher": "PublisherPolicy", "mover": "AliasMoverPolicy", "reader": "ReaderPolicy"}[role]
    return grants(roles, resource, {"ModelStore": STORE, "KmsKeyArn": bucket_key, **keys}, {})


@pytest.mark.parametrize("role", ["publisher", "mover", "reader", "predict", "score"])
def test_a_role_is_what_its_run_needs(run: tuple[Calls, dict[str, str]], role: str) -> None:
    """No request is refused, and every statement is needed by one; what AWS does with the role is AWS's own list."""
    calls, keys = run
    allowed = granted(role, keys)
    assert calls[role]
    assert missing(calls[role], allowed) == set()
    assert {grant for grant in unused(calls[role], allowed) if not is_on_behalf(grant)} == set()


PLAIN = {"s3:ObjectCreationOperation": "true"}
NEW, READ = {**PLAIN, "s3:if-none-match": "*"}, {**PLAIN, "s3:if-match": '"tag"'}
OBJECT = "arn:aws:s3:::artifacts/models/m/1/model.tflite"
SIGNATURE = OBJECT.replace("model.tflite", "manifest.json.sig")
ALIASES = "arn:aws:s3:::artifacts/models/m/aliases.json"
RECORD = "arn:aws:s3:::artifacts/models/audit/0000000/0000000001.json"


@pytest.mark.parametrize(
    ("action", "resource", "context", "who", "policy_lets_it"),
    [
        ("s3:PutObject", OBJECT, NEW, {"publisher"}, True),
        ("s3:PutObject", OBJECT, PLAIN, set(), False),
        ("s3:PutObject", OBJECT, READ, set(), False),
        ("s3:PutObject", SIGNATURE, READ, {"publisher"}, True),
        ("s3:PutObject", SIGNATURE, PLAIN, set(), False),
        ("s3:PutObject", ALIASES, READ, {"publisher", "mover"}, True),
        ("s3:PutObject", ALIASES, NEW, {"publisher"}, True),
        ("s3:PutObject", ALIASES, PLAIN, set(), False),
        ("s3:PutObject", RECORD, NEW, {"publisher", "mover"}, True),
        ("s3:PutObject", RECORD, PLAIN, set(), False),
        ("s3:DeleteObject", OBJECT, {}, set(), False),
        ("s3:DeleteObject", ALIASES, {}, set(), False),
        ("s3:DeleteObjectVersion", RECORD, {}, set(), False),
        ("s3:GetObject", OBJECT, {}, {"publisher", "reader", "predict", "score"}, True),
        ("s3:GetObject", ALIASES, {}, {"publisher", "mover", "reader", "predict", "score"}, True),
        ("s3:GetObject", "arn:aws:s3:::artifacts/other/m/1/model.tflite", {}, set(), True),
    ],
)
def test_who_may_change_a_store(
    run: tuple[Calls, dict[str, str]],
    action: str,
    resource: str,
    context: dict[str, str],
    who: set[str],
    policy_lets_it: bool,
) -> None:
    """Each role has its part, none can overwrite or delete, and the bucket's policy holds whoever else would."""
    call = Call(action, resource, context)
    assert {role for role in run[0] if not missing([call], granted(role, run[1]))} == who
    assert (not any(grant.covers(call) for grant in denied())) == policy_lets_it


def test_the_buckets_policy_lets_every_role_do_its_work(run: tuple[Calls, dict[str, str]]) -> None:
    """Nothing that a run asked of the artifact bucket is denied."""
    policy = denied()
    calls = [call for each in run[0].values() for call in each if call.resource.startswith("arn:aws:s3:::artifacts/")]
    assert {call.action for call in calls} == {"s3:GetObject", "s3:PutObject"}
    assert [call for call in calls if any(grant.covers(call) for grant in policy)] == []


def denied() -> set[Grant]:
    names = {"ArtifactBucket.Arn": "arn:aws:s3:::artifacts"}
    return grants(template(TEMPLATE), "ArtifactBucketPolicy", {}, names, "Deny")
