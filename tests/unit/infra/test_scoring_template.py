"""What the scoring stack promises: nothing lost in its queue, no right too many, settings that the code reads."""

from __future__ import annotations

import json
import re
import tomllib
from typing import TYPE_CHECKING, Any

import pytest

from litelambda.commands.package import PYTHON_VERSION
from litelambda.common.paths import FUNCTIONS, PROJECT, TEMPLATE
from litelambda_serving.scoring.settings import SCORING_SETTINGS
from litelambda_serving.settings import SETTINGS
from support.cloudformation import Evaluator, Template, load, statements

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STACKS = [TEMPLATE, PROJECT / "infra" / "scoring.yaml"]
# Where each kind of resource names the key that it is encrypted with.
KEY_OF: dict[str, Callable[[Template], set[str | None]]] = {
    "AWS::S3::Bucket": lambda properties: {
        rule["ServerSideEncryptionByDefault"].get("KMSMasterKeyID")
        for rule in properties["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    },
    "AWS::SQS::Queue": lambda properties: {properties.get("KmsMasterKeyId")},
    "AWS::Logs::LogGroup": lambda properties: {properties.get("KmsKeyId")},
    "AWS::Serverless::Function": lambda properties: {properties.get("KmsKeyArn")},
}
_PREDICTS_OWN = {"NUM_THREADS", "MODEL_MEMORY_MB", "ALIAS_REFRESH_SECONDS", "CORS_ALLOW_ORIGIN"}


@pytest.fixture(scope="module")
def template() -> Template:
    """infra/scoring.yaml, parsed."""
    return load(PROJECT / "infra" / "scoring.yaml")


@pytest.fixture(scope="module")
def machine() -> dict[str, Any]:
    """The state machine's definition."""
    loaded: dict[str, Any] = json.loads((PROJECT / "infra" / "scoring.asl.json").read_text(encoding="utf-8"))
    return loaded


def _properties(template: Template, name: str) -> Template:
    properties: Template = template["Resources"][name]["Properties"]
    return properties


def test_environment_is_what_the_code_reads(template: Template) -> None:
    """The function's environment names every setting of batch scoring, and of the shared ones those that it uses."""
    variables = _properties(template, "ScoreFunction")["Environment"]["Variables"]
    shared = {setting.name for setting in SETTINGS if setting.name in variables}
    assert set(variables) == shared | {setting.name for setting in SCORING_SETTINGS}
    assert {"MODEL_STORE", "MODEL_NAME", "MODEL_VERSION", "MODEL_MANIFEST_SHA256", "LOG_LEVEL"} <= shared
    assert not shared & _PREDICTS_OWN
    for setting in SCORING_SETTINGS[1:3]:
        assert template["Parameters"][variables[setting.name]["Ref"]]["Default"] == setting.default


def test_the_queue_loses_nothing(template: Template) -> None:
    """A message stays hidden six times as long as an invocation may take, has five tries, and then fourteen days."""
    parameters, queue = template["Parameters"], _properties(template, "Queue")
    assert queue["VisibilityTimeout"] == {"Ref": "VisibilityTimeout"}
    assert parameters["VisibilityTimeout"]["Default"] >= 6 * parameters["Timeout"]["Default"]
    assert queue["RedrivePolicy"]["maxReceiveCount"] >= 5
    assert queue["RedrivePolicy"]["deadLetterTargetArn"] == {"Fn::GetAtt": "DeadLetters.Arn"}
    assert _properties(template, "DeadLetters")["MessageRetentionPeriod"] == 14 * 24 * 3600
    mapping = _properties(template, "ScoreMessages")
    assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
    assert mapping["MaximumBatchingWindowInSeconds"] >= 1
    assert parameters["MaxConcurrency"]["MinValue"] >= 2


KEY = "arn:aws:kms:eu-west-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab"
OTHER_KEY = KEY.replace("1234abcd", "0000abcd")


def _rights(template: Template, role: str, **values: str) -> dict[str, set[str]]:
    """What a role may do, to which resources, with given parameters."""
    resource = Evaluator(template, values).resolve(template["Resources"][role])
    rights: dict[str, set[str]] = {}
    for name, statement in statements({"Resources": {role: resource}}):
        assert name == role
        if "Resource" in statement:
            for action in _listed(statement["Action"]):
                rights.setdefault(action, set()).update(_listed(statement["Resource"]))
    return rights


def _listed(value: Any) -> list[str]:
    return value if isinstance(value, list) else [value]


def test_the_function_writes_predictions_only(template: Template) -> None:
    """It reads models and inputs, writes below predictions/, deletes nothing but checkpoints and uses no key."""
    rights = _rights(template, "ScoreRole", ModelStore="s3://store/models")
    assert {action: resources for action, resources in rights.items() if not action.startswith(("logs:", "sqs:"))} == {
        "s3:GetObject": {"arn:aws:s3:::store/models/*", "<DataBucket.Arn>/*"},
        "s3:GetObjectVersion": {"<DataBucket.Arn>/*"},
        "s3:ListBucket": {"arn:aws:s3:::store", "<DataBucket.Arn>"},
        "s3:PutObject": {"<DataBucket.Arn>/predictions/*"},
        "s3:AbortMultipartUpload": {"<DataBucket.Arn>/predictions/*"},
        "s3:DeleteObject": {"<DataBucket.Arn>/predictions/*.checkpoint"},
    }


def test_further_buckets_are_reached_as_named(template: Template) -> None:
    """An input bucket is read and not written, an output bucket is written, and only its checkpoints are deleted."""
    values = {
        "ModelStore": "s3://store/models",
        "InputBucketArns": "arn:aws:s3:::in-a,arn:aws:s3:::in-b",
        "OutputBucketArns": "arn:aws:s3:::out-a,arn:aws:s3:::out-b",
    }
    before = _rights(template, "ScoreRole", ModelStore="s3://store/models")
    after = _rights(template, "ScoreRole", **values)
    outputs = {"arn:aws:s3:::out-a/*", "arn:aws:s3:::out-b/*"}
    inputs = {"arn:aws:s3:::in-a/*", "arn:aws:s3:::in-b/*"}
    assert {
        action: resources - before[action] for action, resources in after.items() if resources != before[action]
    } == {
        "s3:GetObject": inputs | outputs,
        "s3:GetObjectVersion": inputs,
        "s3:ListBucket": {f"arn:aws:s3:::{name}" for name in ("in-a", "in-b", "out-a", "out-b")},
        "s3:PutObject": outputs,
        "s3:AbortMultipartUpload": outputs,
        "s3:DeleteObject": {"arn:aws:s3:::out-a/*.checkpoint", "arn:aws:s3:::out-b/*.checkpoint"},
    }
    assert _rights(template, "StateMachineRole", **values)["s3:GetObject"] == {
        "<DataBucket.Arn>/*/shards.json",
        "arn:aws:s3:::out-a/*/shards.json",
        "arn:aws:s3:::out-b/*/shards.json",
    }


@pytest.mark.parametrize(
    ("values", "keys"),
    [
        ({}, set()),
        ({"KmsKeyArn": KEY}, {KEY}),
        ({"BucketKmsKeyArns": OTHER_KEY}, {OTHER_KEY}),
        ({"KmsKeyArn": KEY, "BucketKmsKeyArns": f"{OTHER_KEY},{KEY}"}, {KEY, OTHER_KEY}),
    ],
)
def test_customer_keys_can_be_used(template: Template, values: dict[str, str], keys: set[str]) -> None:
    """The function decrypts with, and makes data keys of, each key that is named; a run's plan can be decrypted."""
    values = {"ModelStore": "s3://store/models", **values}
    function = _rights(template, "ScoreRole", **values)
    for action in ("kms:Decrypt", "kms:GenerateDataKey"):
        assert function.get(action, set()) == keys
    assert _rights(template, "StateMachineRole", **values).get("kms:Decrypt", set()) == keys


@pytest.mark.parametrize("path", STACKS, ids=lambda path: path.name)
def test_a_customer_key_encrypts_all_that_is_kept(path: Path) -> None:
    """With KmsKeyArn buckets, queues, logs and environments are under that key; without it none names a key."""
    template = load(path)
    for key in ("", KEY):
        resources = Evaluator(template, {"KmsKeyArn": key, "ModelStore": "s3://store/models"}).resolve(
            {name: each for name, each in template["Resources"].items() if each["Type"] in KEY_OF}
        )
        # Log delivery writes to buckets with S3's own keys alone.
        found = {name: KEY_OF[each["Type"]](each["Properties"]) for name, each in resources.items()}
        assert found
        assert set(found.pop("AccessLogBucket", {None})) == {None}
        assert {name: each for name, each in found.items() if each != {key or None}} == {}


def test_what_is_written_starts_nothing(template: Template) -> None:
    """The prefixes that start work are not the one that predictions go to."""
    prefixes = {
        rule["prefix"]
        for name in ("IncomingRule", "BulkRule")
        for rule in _properties(template, name)["EventPattern"]["detail"]["object"]["key"]
    }
    assert prefixes == {"incoming/", "bulk/"}
    variables = _properties(template, "ScoreFunction")["Environment"]["Variables"]
    assert variables["SCORE_OUTPUT"] == {"Fn::Sub": "s3://${DataBucket}/predictions/"}
    for side in ("INPUT", "OUTPUT"):  # what jobs may name is what the role may use
        further = {"Fn::Join": [",", {"Ref": f"{side.title()}BucketArns"}]}
        assert variables[f"SCORE_{side}_BUCKETS"] == {"Fn::Join": [",", [{"Ref": "DataBucket"}, further]]}


def test_the_function_is_built_and_there(template: Template) -> None:
    """Its handler exists, its makefile target too, and its interpreter is the one that the wheels are for."""
    function = template["Resources"]["ScoreFunction"]
    assert (FUNCTIONS / "score.py").is_file()
    assert function["Properties"]["Handler"] == "score.handler"
    assert function["Properties"]["Runtime"] == f"python{PYTHON_VERSION}"
    assert "\nbuild-ScoreFunction" in (PROJECT / "Makefile").read_text(encoding="utf-8")
    for architecture in template["Parameters"]["Architecture"]["AllowedValues"]:
        assert (PROJECT / "infra" / "make" / architecture / "Makefile").is_file()
    assert "scoring" in tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["dependency-groups"]


def test_the_state_machine_is_filled_in(template: Template) -> None:
    """Every placeholder of the definition is substituted, and nothing else is."""
    text = (PROJECT / "infra" / "scoring.asl.json").read_text(encoding="utf-8")
    substitutions = _properties(template, "StateMachine")["DefinitionSubstitutions"]
    assert set(re.findall(r"\$\{(\w+)\}", text)) == set(substitutions)


def test_shards_are_retried_with_jitter(machine: dict[str, Any]) -> None:
    """Each task waits longer from try to try, at random, for what may pass; a bad input is never tried again."""
    shards = machine["States"]["ScoreShards"]["ItemProcessor"]
    assert shards["ProcessorConfig"]["Mode"] == "DISTRIBUTED"
    tasks = [machine["States"]["Plan"], machine["States"]["Merge"], shards["States"]["ScoreShard"]]
    for task in tasks:
        (retry,) = task["Retry"]
        assert retry["JitterStrategy"] == "FULL"
        assert retry["BackoffRate"] > 1
        assert "StoreUnavailableError" in retry["ErrorEquals"]
        assert not {"States.ALL", "TooManyBadRowsError", "SchemaError"} & set(retry["ErrorEquals"])
    assert machine["States"]["ScoreShards"]["Catch"]


def test_no_service_acts_for_another_account(template: Template) -> None:
    """Every service but Lambda that may take a role does so for this account alone."""
    trusts = {
        role: statement
        for role, statement in statements(template)
        if statement.get("Action") == "sts:AssumeRole" and statement["Principal"] != {"Service": "lambda.amazonaws.com"}
    }
    assert set(trusts) == {"BulkRole", "StateMachineRole"}
    for statement in trusts.values():
        assert statement["Condition"] == {"StringEquals": {"aws:SourceAccount": {"Ref": "AWS::AccountId"}}}


def test_scoring_can_be_bounded(template: Template) -> None:
    """Queue and runs each have a maximum concurrency, and both together a reserved one where it is asked for."""
    properties = _properties(template, "ScoreFunction")
    assert "ReservedConcurrentExecutions" not in Evaluator(template, {}).resolve(properties)
    reserved = Evaluator(template, {"ReservedConcurrency": "200"}).resolve(properties)
    assert reserved["ReservedConcurrentExecutions"] == "200"
    assert _properties(template, "ScoreMessages")["ScalingConfig"]["MaximumConcurrency"] == {"Ref": "MaxConcurrency"}
    assert _properties(template, "StateMachine")["DefinitionSubstitutions"]["MaxConcurrency"] == {
        "Ref": "MaxConcurrency"
    }
