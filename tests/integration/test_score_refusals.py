"""What S3 may answer to the batch function, and what a job may not ask of it. Faults are made on the wire."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace

import numpy as np
import pytest

from litelambda_serving.errors import StoreLocationError
from litelambda_serving.scoring.errors import JobError, OutputExistsError
from support.faulty_aws import CONFLICT, LOST_ANSWER, Fault, faulty_stack
from support.score_stack import BUCKET
from support.scoring_files import as_jsonl, expected, make_rows, read_jsonl

ROWS = make_rows(20)


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))  # back-off is botocore's
    monkeypatch.setattr("litelambda_serving.objects.s3_requests._CONFLICT_PAUSE_S", 0)
    with faulty_stack(tmp_path, monkeypatch) as (made, aws):
        made.aws = aws
        yield made


def event(stack, key="a.jsonl", data=None):
    """The notification of an object that was put there."""
    answer = stack.s3.put_object(Bucket=BUCKET, Key=key, Body=as_jsonl(ROWS) if data is None else data)
    found = {"key": key, "etag": answer["ETag"].strip('"'), "version-id": answer["VersionId"]}
    return {
        "source": "aws.s3",
        "detail-type": "Object Created",
        "detail": {"bucket": {"name": BUCKET}, "object": found},
    }


def written(stack, key):
    """How often an object was written."""
    return len(stack.s3.list_object_versions(Bucket=BUCKET, Prefix=key).get("Versions", []))


def once(operation, fault, prefix=f"{BUCKET}/predictions/", ending=".jsonl"):
    """A fault of the first such request for an output."""
    faults = iter([fault])

    def ask(asked, path):
        is_meant = asked == operation and path.startswith(prefix) and path.endswith(ending)
        return next(faults, None) if is_meant else None

    return ask


def check_scored_once(stack):
    """The predictions are there, right, whole, and were written once; nothing is left in the queues."""
    (key,) = stack.outputs().values()
    lines = read_jsonl(stack.get(key))
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(ROWS))
    assert written(stack, key) == 1
    assert stack.queues.dead() == []


@pytest.mark.parametrize("output", ["s3://nowhere/out/", "s3://nowhere/out.jsonl"])
def test_an_output_bucket_that_does_not_exist(stack, caplog, output):
    """The job is raised, logged at each try, and ends in the dead-letter queue: it is not acknowledged."""
    event(stack)
    job = {"input": f"s3://{BUCKET}/a.jsonl", "output": output}
    stack.queues.send(job)
    with caplog.at_level(logging.INFO):
        stack.queues.drain(stack.invoke)
    assert [json.loads(body) for body in stack.queues.dead()] == [job]
    tries = [record for record in caplog.records if "a message will be tried again" in record.message]
    assert len(tries) == 5
    assert all("the bucket of s3://nowhere/out" in str(record.exc_info[1]) for record in tries)
    with pytest.raises(StoreLocationError):
        stack.invoke(job)


def test_a_bad_input_whose_report_cannot_be_written(stack):
    """What neither is done nor can be reported is not acknowledged."""
    job = {"input": f"s3://{BUCKET}/none.jsonl", "output": "s3://nowhere/out/"}
    stack.queues.send(job)
    stack.queues.drain(stack.invoke)
    assert [json.loads(body) for body in stack.queues.dead()] == [job]


def test_an_input_bucket_that_does_not_exist(stack):
    """The input's own fault is reported beside the output, and acknowledged."""
    stack.queues.send({"input": "s3://nowhere/a.jsonl", "output": f"s3://{BUCKET}/predictions/"})
    stack.queues.drain(stack.invoke)
    assert stack.queues.dead() == []
    (report,) = [key for key in stack.list() if key.endswith(".failure.json")]
    assert json.loads(stack.get(report))["error"] == "InputNotFoundError"


def test_a_conflict_is_undecided(stack):
    """409 says that another write was on its way, not that it won: the same write is tried again, and stored."""
    stack.aws.fault = once("PutObject", CONFLICT)
    assert stack.invoke(event(stack))["results"][0]["status"] == "done"
    check_scored_once(stack)


def test_a_conflict_that_stays_is_never_taken_for_done(stack):
    """As long as S3 decides nothing the message comes back; what was not written is not said to be."""
    stack.queues.send(event(stack))
    stack.aws.fault = lambda operation, path: CONFLICT if operation == "PutObject" and path.endswith(".jsonl") else None
    stack.queues.poll(stack.invoke)
    assert stack.outputs() == {}
    stack.aws.fault = lambda operation, path: None
    stack.queues.drain(stack.invoke)
    check_scored_once(stack)


@pytest.mark.parametrize("fault", [LOST_ANSWER, Fault(0, is_done=True)])
@pytest.mark.parametrize("output", ["", f"s3://{BUCKET}/predictions/named.jsonl"])
def test_an_answer_that_is_lost(stack, fault, output):
    """The output was stored, its answer is lost, and the client's own second try is refused: the job is done."""
    stack.aws.fault = once("PutObject", fault)
    asked = event(stack)
    result = stack.invoke({"input": f"s3://{BUCKET}/a.jsonl", "output": output} if output else asked)
    result = result if output else result["results"][0]
    assert result["status"] == "done"
    (key,) = [key for key in stack.list("predictions/") if key.endswith(".jsonl")]
    lines = read_jsonl(stack.get(key))
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(ROWS))
    assert written(stack, key) == 1


def test_a_named_output_of_another_job(stack):
    """A name that another job took is an error, not this job's success."""
    event(stack)
    job = {"input": f"s3://{BUCKET}/a.jsonl", "output": f"s3://{BUCKET}/out.jsonl"}
    assert stack.invoke(job)["status"] == "done"
    assert stack.invoke(job)["status"] == "already_done"
    before = stack.get("out.jsonl")
    with pytest.raises(OutputExistsError, match="another job"):
        stack.invoke({**job, "passthrough": []})
    assert stack.get("out.jsonl") == before


@pytest.fixture
def short(stack, monkeypatch):
    """Invocations that stop after some chunks, and parts as small as moto takes them."""
    from litelambda_serving.scoring.running import engine

    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 8000)
    monkeypatch.setattr("litelambda_serving.objects.base.MIN_PART_BYTES", 6000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 5000)
    stops = []
    monkeypatch.setattr(engine._Run, "_must_stop", lambda run, limit: stops.append(run) or len(stops) % 3 == 0)
    return stack


@pytest.mark.parametrize("fault", [LOST_ANSWER, CONFLICT])
@pytest.mark.parametrize(
    ("operation", "ending"),
    [("PutObject", ".checkpoint"), ("CompleteMultipartUpload", ".jsonl"), ("CreateMultipartUpload", ".jsonl")],
)
def test_checkpoints_and_parts_on_a_bad_wire(short, fault, operation, ending):
    """Whatever of a long file's requests breaks, each of its rows is there once, and no checkpoint stays."""
    rows = make_rows(700)
    short.aws.fault = once(operation, fault, ending=ending)
    short.queues.send(event(short, data=as_jsonl(rows)))
    short.queues.drain(short.invoke)
    (key,) = short.outputs().values()
    lines = read_jsonl(short.get(key))
    assert [line["line"] for line in lines] == list(range(1, 701))
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(rows))
    assert written(short, key) == 1
    assert short.queues.dead() == []
    assert [name for name in short.list() if name.endswith(".checkpoint")] == []


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (403, "InvalidObjectState"),
        (400, "KMS.DisabledException"),
        (400, "KMS.NotFoundException"),
        (400, "InvalidRequest"),
        (400, "KeyTooLongError"),
        (301, "PermanentRedirect"),
    ],
)
@pytest.mark.parametrize("operations", [("GetObject",), ("HeadObject", "GetObject")])
def test_what_s3_refuses_for_good_is_reported(stack, status, code, operations):
    """An archived object, a disabled key and their like are told once, with S3's word for it, and acknowledged."""
    stack.aws.fault = lambda operation, path: (
        Fault(status, code) if operation in operations and path == f"{BUCKET}/a.jsonl" else None
    )
    asked = event(stack)
    asked["detail"]["object"].pop("version-id")
    stack.queues.send(asked)
    assert stack.queues.drain(stack.invoke) == 1
    assert stack.queues.dead() == []
    (report,) = [key for key in stack.list() if key.endswith(".failure.json")]
    report = json.loads(stack.get(report))
    assert report["error"] == "InputRefusedError"
    assert code in report["message"]


@pytest.mark.parametrize("code", ["SomethingNew", "KMS.ThrottlingException", "RequestTimeout"])
def test_what_is_not_known_is_tried_again(stack, code):
    """A code that this version has not heard of ends nothing: the message comes back, and succeeds."""
    stack.queues.send(event(stack))
    stack.aws.fault = lambda operation, path: (
        Fault(400, code) if operation == "GetObject" and path == f"{BUCKET}/a.jsonl" else None
    )
    stack.queues.poll(stack.invoke)
    assert [key for key in stack.list() if key.endswith(".failure.json")] == []
    stack.aws.fault = lambda operation, path: None
    stack.queues.drain(stack.invoke)
    check_scored_once(stack)


def test_what_s3_refuses_to_write_is_not_acknowledged(stack):
    """An output under a disabled key is nobody's input's fault: the message ends among the dead letters."""
    asked = event(stack)
    stack.queues.send(asked)
    stack.aws.fault = lambda operation, path: (
        Fault(400, "KMS.DisabledException") if operation == "PutObject" and "predictions/" in path else None
    )
    stack.queues.drain(stack.invoke)
    assert [json.loads(body) for body in stack.queues.dead()] == [asked]


@pytest.mark.parametrize("key", ["x" * 1024, "ä" * 512, "a/" * 500 + "x.jsonl"])
def test_keys_as_long_as_s3_takes_them(stack, key):
    """The output's key is shortened, and still one of its own."""
    key = key.removesuffix("x.jsonl")[: 1024 - 6] + ".jsonl" if len(key.encode()) == len(key) else "ä" * 508 + ".jsonl"
    assert len(key.encode()) > 1000
    result = stack.invoke(event(stack, key=key))["results"][0]
    assert result["status"] == "done"
    written_key = result["output"].removeprefix(f"s3://{BUCKET}/")
    assert len(written_key.encode()) <= 1024
    lines = read_jsonl(stack.get(written_key))
    np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(ROWS))
    assert stack.invoke(event(stack, key=key[1:]))["results"][0]["output"] != result["output"]


@pytest.mark.parametrize(
    "options",
    [
        {"passthrough": ["id"]},
        {"tolerated_bad": 0.5},
        {"resize": True},
        {"input_format": "csv"},
        {"output_format": "csv"},
        {"span": [0, 10]},
    ],
)
def test_other_options_are_another_job(stack, options):
    """What decides the bytes or the verdict makes another output: nothing is answered with the first job's."""
    event(stack)
    job = {"input": f"s3://{BUCKET}/a.jsonl", "output": f"s3://{BUCKET}/predictions/", "tolerated_bad": 1.0}
    first = stack.invoke(job)
    assert stack.invoke({**job, "input_format": "jsonl"})["status"] == "already_done"  # as its ending says
    second = stack.invoke({**job, **options})
    assert (first["status"], second["status"]) == ("done", "done")
    assert first["output"] != second["output"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"input": "file:///etc/passwd"}, "expected s3://bucket/key"),
        ({"output": "file:///tmp/out/"}, "expected s3://bucket/key"),
        ({"input": "s3://elsewhere/a.jsonl"}, "SCORE_INPUT_BUCKETS"),
        ({"output": "s3://elsewhere/out/"}, "SCORE_OUTPUT_BUCKETS"),
    ],
)
def test_places_that_jobs_may_not_use(tmp_path, monkeypatch, fields, message):
    """A job's input and output are in S3, in buckets that the function was given; however the job comes."""
    buckets = {"SCORE_INPUT_BUCKETS": f"{BUCKET}, arn:aws:s3:::more", "SCORE_OUTPUT_BUCKETS": BUCKET}
    with faulty_stack(tmp_path, monkeypatch, **buckets) as (stack, aws):
        job = {"input": f"s3://{BUCKET}/a.jsonl", "output": f"s3://{BUCKET}/out/", **fields}
        with pytest.raises(JobError, match=message):
            stack.invoke(job)
        with pytest.raises(JobError, match=message):
            stack.invoke({"action": "plan", "request": job})
        stack.queues.send(job)
        stack.queues.drain(stack.invoke)
        assert [json.loads(body) for body in stack.queues.dead()] == [job]
        assert aws.calls == []
        assert stack.handler._scoring.input_buckets == {BUCKET, "more"}
        with pytest.raises(JobError):
            stack.invoke({"action": "merge", "plan": {"run": "file:///tmp/out/"}})
