"""What the scoring stack promises: nothing lost in its queue, no right too many, settings that the code reads."""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

import pytest
from test_template import Template, _load, _statements

from litelambda.package import PYTHON_VERSION
from litelambda.paths import FUNCTIONS, PROJECT
from serving.scoring.settings import SCORING_SETTINGS
from serving.settings import SETTINGS

_PREDICTS_OWN = {"NUM_THREADS", "MODEL_MEMORY_MB", "ALIAS_REFRESH_SECONDS", "CORS_ALLOW_ORIGIN"}


@pytest.fixture(scope="module")
def template() -> Template:
    """infra/scoring.yaml, parsed."""
    return _load(PROJECT / "infra" / "scoring.yaml")


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


def test_the_function_writes_predictions_only(template: Template) -> None:
    """It reads models and inputs, writes below predictions/, and deletes nothing but checkpoints."""
    reach: dict[str, set[str]] = {}
    for name, statement in _statements(template):
        if name == "ScoreRole" and "Resource" in statement:
            actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
            for action in actions:
                reach.setdefault(action, set()).add(json.dumps(statement["Resource"]))
    assert {action for action in reach if action.startswith("s3:")} == {
        *("s3:GetObject", "s3:GetObjectVersion", "s3:ListBucket", "s3:PutObject", "s3:AbortMultipartUpload"),
        "s3:DeleteObject",
    }
    assert all("/predictions/*" in resource for resource in reach["s3:PutObject"])
    assert all("predictions/*.checkpoint" in resource for resource in reach["s3:DeleteObject"])


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
