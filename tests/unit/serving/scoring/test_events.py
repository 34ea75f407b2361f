"""What events ask for, and what jobs may say."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from litelambda_serving.errors import SettingsError
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.events import jobs_of_event, jobs_of_message
from litelambda_serving.scoring.job import Job, Outputs, identity
from litelambda_serving.scoring.models import parse_reference
from litelambda_serving.scoring.settings import ScoringSettings

EVENTS = Path(__file__).parents[3] / "events"
SETTINGS = ScoringSettings({})
KEY = "s3://data/in/a file ä +.jsonl"


def event(name: str):
    return json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["s3_put", "eventbridge_object_created"])
def test_both_notifications_mean_the_same(name):
    """S3's own notification, its key URL-encoded, and EventBridge's, its key plain, give the same job."""
    (job,) = jobs_of_event(event(name), SETTINGS, "m@latest")
    assert job == Job(
        KEY,
        "s3://data/predictions/",
        version_id="096fKKXTRTtl3on89fVO.nfljtsv6qko",
        etag="d41d8cd98f00b204e9800998ecf8427e",
        model="m@latest",
    )
    notification = {"Type": "Notification", "Message": json.dumps(event(name))}
    assert jobs_of_message(json.dumps(notification), SETTINGS, "m@latest") == [job]


def changed(name, **fields):
    found = event(name)
    record = found["Records"][0]
    record.update({key: value for key, value in fields.items() if key in record})
    record["s3"]["object"].update({key: value for key, value in fields.items() if key not in record})
    return found


@pytest.mark.parametrize(
    "nothing",
    [
        event("s3_test_event"),
        {"Records": []},
        changed("s3_put", eventName="ObjectRemoved:Delete"),
        changed("s3_put", key="folder/"),
        changed("s3_put", key="predictions/in/x.jsonl"),
        changed("s3_put", key="elsewhere/x.errors.jsonl"),
        {"source": "aws.s3", "detail-type": "Object Deleted", "detail": {}},
    ],
)
def test_events_that_ask_for_nothing(nothing, caplog):
    """Test events, deletions, folders and what this function wrote itself start no job, and each leaves a line."""
    with caplog.at_level(logging.INFO):
        assert jobs_of_event(nothing, SETTINGS, "m") == []
    assert len(caplog.records) == (nothing != {"Records": []})


@pytest.mark.parametrize(
    "body",
    ["", "{", "[]", "3", '{"hello": "world"}', '{"Records": [{}]}', '{"Records": 3}',
     '{"Records": [{"eventSource": "x"}]}',
     '{"input": 3}', '{"input": "x", "output": "y"}', '{"input": "s3://b/k", "sorted": true}',
     '{"input": "s3://b/k", "tolerated_bad": "x"}', '{"input": "s3://b/k", "tolerated_bad": 2}',
     '{"input": "s3://b/k", "output_format": "xml"}', '{"input": "s3://b/k", "input_format": "xml"}',
     '{"input": "s3://b/k", "span": 3}', '{"input": "s3://b/k", "span": [-10, 50]}',
     '{"input": "s3://b/k", "span": [50, 10]}', '{"input": "s3://b/k", "span": [0, 1, 2]}',
     '{"input": "s3://b/k", "span": [0, 1.5]}', '{"input": "s3://b/k", "span": [0, true]}',
     '{"input": "s3://b/k", "limit": "5"}', '{"input": "s3://b/k", "limit": 0}',
     '{"input": "s3://b/k", "limit": 1e400}',
     '{"input": "s3://b/k", "shard": -1}', '{"input": "s3://b/k", "shard": true}',
     '{"input": "s3://b/k", "resize": "no"}', '{"input": "s3://b/k", "resize": 1}',
     '{"input": "s3://b/k", "tolerated_bad": true}', '{"input": "s3://b/k", "tolerated_bad": NaN}',
     '{"input": "s3://b/k", "passthrough": "id"}', '{"input": "s3://b/k", "passthrough": [1]}',
     '{"input": "s3://b/k", "model": 3}', '{"input": "s3://b/k", "etag": ["x"]}',
     '{"input": "s3://b/k", "output_format": ["csv"]}', '{"input": "s3://b/k", "start_after": 5}'],
)  # fmt: skip
def test_messages_that_make_no_sense(body):
    """Whatever cannot be understood is an error, for the dead-letter queue: nothing is dropped in silence."""
    with pytest.raises(JobError):
        jobs_of_message(body, SETTINGS, "m")


@pytest.mark.parametrize(
    ("field", "message"),
    [
        ({"limit": "5"}, "limit '5' of a job: expected a positive number"),
        ({"span": [-10, 50]}, "span .* of a job: expected its beginning and its end"),
        ({"resize": "no"}, "resize 'no' of a job: expected true or false"),
    ],
)
def test_a_wrong_field_of_a_job_is_named(field, message):
    """The message says what came and what was expected, before anything is read."""
    with pytest.raises(JobError, match=message):
        Job.from_dict({"input": "s3://b/k", "output": "s3://b/p/", **field})


def test_null_in_a_job_is_absence():
    """A state machine that hands on all fields of a job hands on those that nobody set, too."""
    plain = {"input": "s3://b/k", "output": "s3://b/p/"}
    every = dict.fromkeys(("model", "span", "limit", "shard", "resize", "passthrough", "tolerated_bad", "etag"))
    assert Job.from_dict({**plain, **every}) == Job.from_dict(plain)


def test_a_job_handed_on_keeps_what_it_says():
    """A format and a share that are the library's own defaults hold against the settings; null is the settings'."""
    settings = ScoringSettings(
        {"SCORE_OUTPUT": "s3://out/p/", "SCORE_OUTPUT_FORMAT": "csv", "SCORE_TOLERATED_BAD": "0.5"}
    )
    said = {"input": "s3://b/k.npy", "output_format": "jsonl", "tolerated_bad": 0.01}
    (job,) = jobs_of_message(json.dumps(said), settings, "m:3")
    (again,) = jobs_of_message(json.dumps(job.to_dict()), settings, "m:3")
    assert (again.output_format, again.tolerated_bad) == ("jsonl", 0.01)
    unsaid = {"input": "s3://b/k.npy", "output_format": None, "tolerated_bad": None, "model": None, "output": None}
    (job,) = jobs_of_message(json.dumps(unsaid), settings, "m:3")
    assert job == Job("s3://b/k.npy", "s3://out/p/", model="m:3", output_format="csv", tolerated_bad=0.5)


def test_a_job_spelt_out():
    """A job in a message takes the function's settings where it says nothing, and survives a round trip."""
    settings = ScoringSettings(
        {"SCORE_OUTPUT": "s3://out/p/", "SCORE_OUTPUT_FORMAT": "csv", "SCORE_TOLERATED_BAD": "0.5"}
    )
    (job,) = jobs_of_message('{"input": "s3://b/k.npy", "span": [0, 5], "passthrough": []}', settings, "m:3")
    assert job == Job(
        "s3://b/k.npy", "s3://out/p/", model="m:3", output_format="csv", tolerated_bad=0.5, span=(0, 5), passthrough=()
    )
    assert Job.from_dict(json.loads(json.dumps(job.to_dict()))) == job


def test_output_names_tell_input_version_and_model():
    """Another input, version, model or part has another output; the same ones have the same."""
    job = Job("s3://b/in/k.csv", "s3://out/", etag="e1")
    others = [
        (Job("s3://b/in/l.csv", "s3://out/", etag="e1"), "d"),
        (Job("s3://b/in/k.csv", "s3://out/", etag="e2"), "d"),
        (Job("s3://b/in/k.csv", "s3://out/", etag="e1", version_id="v"), "d"),
        (Job("s3://b/in/k.csv", "s3://out/", etag="e1", span=(0, 1)), "d"),
        (job, "d2"),
    ]
    names = {identity(other, digest) for other, digest in others}
    assert len(names) == len(others)
    assert identity(job, "d") not in names
    outputs = Outputs(job, "d")
    assert outputs.predictions == f"s3://out/in/k.csv.{identity(job, 'd')}.jsonl"
    assert outputs.errors == f"s3://out/in/k.csv.{identity(job, 'd')}.errors.jsonl"
    assert (
        Outputs(Job("s3://b/k", "file:///x/out.csv", output_format="csv"), "d").summary == "file:///x/out.summary.json"
    )


@pytest.mark.parametrize(
    "environment",
    [{"SCORE_OUTPUT": "s3://b/p"}, {"SCORE_OUTPUT": "b/p/"}, {"SCORE_OUTPUT": "s3://b/"}, {"SCORE_OUTPUT": "s3:///p/"},
     {"SCORE_OUTPUT": "s3://b//"}, {"SCORE_OUTPUT_FORMAT": "x"}, {"SCORE_TOLERATED_BAD": "x"},
     {"SCORE_TOLERATED_BAD": "1.5"}],
)  # fmt: skip
def test_impossible_settings(environment):
    """A wrong variable fails INIT with what it may be."""
    with pytest.raises(SettingsError, match=next(iter(environment))):
        ScoringSettings(environment)


@pytest.mark.parametrize(
    ("reference", "parts"), [("m", ("m", "latest")), ("m@stable", ("m", "stable")), ("m:7", ("m", "7"))]
)
def test_model_references(reference, parts):
    """The three ways to name a model."""
    assert parse_reference(reference) == parts


@pytest.mark.parametrize("reference", ["", "m:x", "m@", "../m", "m@../x", "m:"])
def test_wrong_model_references(reference):
    """Anything else is refused with the three ways."""
    with pytest.raises(JobError, match="NAME@alias or NAME:version"):
        parse_reference(reference)
