"""The batch handler on moto's S3 and SQS: each file once, whatever goes wrong on the way."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest

from litelambda_serving.scoring.errors import InputNotFoundError, InputReplacedError, TooManyBadRowsError
from litelambda_serving.scoring.running import engine
from support.score_stack import BUCKET, CUT_SHORT, score_stack
from support.scoring_files import as_jsonl, expected, make_rows, make_store, read_jsonl

EVENTS = Path(__file__).parents[1] / "events"


@pytest.fixture
def stack(tmp_path, monkeypatch):
    monkeypatch.setattr("litelambda_serving.objects.s3_requests._ATTEMPTS", 1)
    with score_stack(tmp_path, monkeypatch) as made:
        yield made


def notification(key: str, etag: str = "", version_id: str = "", name: str = "s3_put"):
    """S3's notification of an object; an EventBridge event by the name of its file."""
    event = json.loads((EVENTS / f"{name}.json").read_text(encoding="utf-8"))
    if name == "s3_put":
        entry = event["Records"][0]["s3"]["object"]
        entry["key"] = key.replace(" ", "+")
        entry.pop("versionId")
        entry.update({"eTag": etag, **({"versionId": version_id} if version_id else {})})
    else:
        entry = event["detail"]["object"]
        entry.pop("version-id")
        entry.update({"key": key, "etag": etag, **({"version-id": version_id} if version_id else {})})
    return event


def predictions(stack, key: str):
    return np.array([line["prediction"] for line in read_jsonl(stack.get(stack.outputs()[key]))], np.float32)


@pytest.mark.parametrize("name", ["s3_put", "eventbridge_object_created"])
def test_a_file_lands_and_its_predictions_land_beside_it(stack, name):
    """Through the queue, in either form of notification; with a summary of the run, and no errors object."""
    rows = make_rows(300)
    etag = stack.put("in/some rows.jsonl", as_jsonl(rows))
    stack.queues.send(notification("in/some rows.jsonl", etag, name=name))
    stack.queues.send((EVENTS / "s3_test_event.json").read_text())
    assert stack.queues.drain(stack.invoke) == 1
    np.testing.assert_array_equal(predictions(stack, "in/some rows.jsonl"), expected(rows))
    assert stack.queues.dead() == []
    (summary_key,) = [key for key in stack.list() if key.endswith(".summary.json")]
    summary = json.loads(stack.get(summary_key))
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (300, 300, 0)
    assert summary["model"]["name"] == "tiny_int8"
    assert summary["input"]["etag"] == etag
    assert len(stack.list("predictions/")) == 2


def test_a_redelivered_event_costs_one_head(stack):
    """What was scored is recognised by its output's name: one HEAD, nothing read, nothing written."""
    etag = stack.put("in/a.jsonl", as_jsonl(make_rows(10)))
    event = notification("in/a.jsonl", etag)
    stack.invoke(event)
    before = stack.list()
    stack.calls.clear()
    assert stack.invoke(event)["results"][0]["status"] == "already_done"
    assert [operation for operation, _ in stack.calls] == ["HeadObject"]
    assert stack.list() == before


def test_versions_of_one_key_are_inputs_of_their_own(tmp_path, monkeypatch):
    """With versioning on, an event means its version, also when the key was overwritten before it came."""
    with score_stack(tmp_path, monkeypatch, versioned=True) as stack:
        versions = []
        for seed in (1, 2):
            rows = as_jsonl(make_rows(5, seed=seed))
            answer = stack.s3.put_object(Bucket=BUCKET, Key="a.jsonl", Body=rows)
            versions.append((answer["ETag"].strip('"'), answer["VersionId"]))
        for etag, version_id in reversed(versions):  # and out of order
            stack.queues.send(notification("a.jsonl", etag, version_id))
        stack.queues.drain(stack.invoke)
        outputs = [key for key in stack.list("predictions/") if key.endswith(".jsonl")]
        found = sorted(str([line["prediction"] for line in read_jsonl(stack.get(key))]) for key in outputs)
        assert found == sorted(str(expected(make_rows(5, seed=seed)).tolist()) for seed in (1, 2))


@pytest.mark.parametrize(
    ("prepare", "error"),
    [
        (lambda stack: "0" * 32, "InputNotFoundError"),
        (lambda stack: stack.put("a.jsonl", b"x") and "0" * 32, "InputReplacedError"),
        (lambda stack: stack.put("a.jsonl", b"[1]\n"), "TooManyBadRowsError"),
        (lambda stack: stack.put("a.jsonl", b"\x1f\x8b") and stack.put("a.jsonl", b"{}\n" * 9), "TooManyBadRowsError"),
    ],
)
def test_permanent_failures_are_reported_and_acknowledged(stack, prepare, error):
    """A file that cannot be scored leaves a report where its output would be, and no message behind."""
    stack.queues.send(notification("a.jsonl", prepare(stack)))
    assert stack.queues.drain(stack.invoke) == 1
    assert stack.queues.dead() == []
    (report_key,) = [key for key in stack.list() if key.endswith(".failure.json")]
    assert json.loads(stack.get(report_key))["error"] == error
    assert stack.outputs() == {}


def test_a_direct_invocation_raises_what_an_event_reports(stack):
    """Whoever invokes the function with a job learns of its failure by an error that a state machine can match."""
    with pytest.raises(InputNotFoundError):
        stack.invoke({"input": f"s3://{BUCKET}/none.jsonl"})
    stack.put("a.jsonl", b"nonsense\n")
    with pytest.raises(TooManyBadRowsError, match="1 of 1 rows are bad"):
        stack.invoke({"input": f"s3://{BUCKET}/a.jsonl", "output": f"s3://{BUCKET}/out/a.jsonl"})
    assert sorted(stack.list("out/")) == ["out/a.errors.jsonl", "out/a.failure.json"]
    result = stack.invoke({"input": f"s3://{BUCKET}/a.jsonl", "tolerated_bad": 1.0})
    assert (result["status"], result["summary"]["rows_bad"]) == ("done", 1)


def test_partial_batch_response(stack):
    """Of a batch, only the message that may succeed later comes back; poison ends in the dead-letter queue."""
    good = stack.put("good.jsonl", as_jsonl(make_rows(5)))
    slow = stack.put("slow.jsonl", as_jsonl(make_rows(5)))
    attempts = []

    def fault(operation, key):
        if key == "slow.jsonl" and operation == "HeadObject":
            attempts.append(key)
            return 503 if len(attempts) < 3 else None
        return None

    stack.fault = fault
    for body in (notification("good.jsonl", good), notification("slow.jsonl", slow), "poison"):
        stack.queues.send(body)
    stack.queues.drain(stack.invoke)
    assert len(attempts) == 3
    assert stack.outputs().keys() == {"good.jsonl", "slow.jsonl"}
    assert stack.queues.dead() == ["poison"]


@pytest.mark.parametrize("operation", ["GetObject", "HeadObject", "PutObject"])
@pytest.mark.parametrize("status", [503, 500, 403])
def test_an_s3_in_trouble_is_tried_again(stack, operation, status):
    """Throttling, server errors and missing rights are nobody's data's fault: the message stays until they pass."""
    etag = stack.put("a.jsonl", as_jsonl(make_rows(5)))
    stack.queues.send(notification("a.jsonl", etag))
    stack.fault = lambda asked, key: status if asked == operation else None
    assert stack.queues.poll(stack.invoke)
    assert stack.outputs() == {}
    stack.fault = lambda asked, key: None
    stack.queues.drain(stack.invoke)
    assert list(stack.outputs()) == ["a.jsonl"]
    assert stack.queues.dead() == []


def test_a_body_cut_short_is_read_again(stack):
    """Half a body is never taken for a whole one."""
    rows = make_rows(500)
    etag = stack.put("a.jsonl", as_jsonl(rows))
    cuts = iter([CUT_SHORT, CUT_SHORT])
    stack.fault = lambda operation, key: next(cuts, None) if operation == "GetObject" and key == "a.jsonl" else None
    stack.invoke(notification("a.jsonl", etag))
    np.testing.assert_array_equal(predictions(stack, "a.jsonl"), expected(rows))
    assert next(cuts, None) is None


def test_an_input_replaced_while_it_is_read(stack, monkeypatch):
    """Rows of two versions are never mixed: the old event is reported as replaced, the new one's file is whole."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 2000)
    old = stack.put("a.jsonl", as_jsonl(make_rows(500)))
    new_rows = make_rows(400, seed=9)
    reads = []

    def fault(operation, key):
        if operation == "GetObject" and key == "a.jsonl":
            reads.append(key)
            if len(reads) == 6:
                stack.put("a.jsonl", as_jsonl(new_rows))

    stack.fault = fault
    result = stack.invoke(notification("a.jsonl", old))["results"][0]
    assert (result["status"], result["error"]) == ("failed", InputReplacedError.__name__)
    assert stack.outputs() == {}
    stack.fault = lambda operation, key: None
    stack.invoke(notification("a.jsonl", stack.s3.head_object(Bucket=BUCKET, Key="a.jsonl")["ETag"].strip('"')))
    np.testing.assert_array_equal(predictions(stack, "a.jsonl"), expected(new_rows))


def test_a_crash_between_write_and_acknowledge(stack):
    """The function dies after its output is there: the redelivered message finds it, and writes nothing."""
    etag = stack.put("a.jsonl", as_jsonl(make_rows(50)))
    stack.queues.send(notification("a.jsonl", etag))

    def crash(event):
        stack.invoke(event)
        raise MemoryError

    assert stack.queues.poll(crash)
    (key,) = stack.outputs().values()
    before = stack.s3.head_object(Bucket=BUCKET, Key=key)["LastModified"], stack.get(key)
    stack.calls.clear()
    stack.queues.drain(stack.invoke)
    assert {operation for operation, _ in stack.calls} == {"HeadObject"}
    assert (stack.s3.head_object(Bucket=BUCKET, Key=key)["LastModified"], stack.get(key)) == before


def test_two_at_once_commit_one_output(stack, monkeypatch):
    """A duplicate that runs side by side loses the conditional write, and says that all is done."""
    etag = stack.put("a.jsonl", as_jsonl(make_rows(50)))
    event = notification("a.jsonl", etag)
    original = engine.make_summary
    inner = []

    def race(*arguments):
        if not inner:
            inner.append(None)
            inner.append(stack.invoke(event)["results"][0]["status"])
        return original(*arguments)

    monkeypatch.setattr(engine, "make_summary", race)
    outer = stack.invoke(event)["results"][0]["status"]
    assert (outer, inner[1]) == ("already_done", "done")
    assert len(stack.outputs()) == 1


@pytest.fixture
def short_invocations(stack, monkeypatch):
    """A function that must stop after every few chunks, with parts as small as moto takes them."""
    monkeypatch.setattr("litelambda_serving.scoring.formats.text.CHUNK_BYTES", 8000)
    monkeypatch.setattr("litelambda_serving.objects.base.MIN_PART_BYTES", 6000)
    monkeypatch.setattr("moto.s3.models.S3_UPLOAD_PART_MIN_SIZE", 5000)
    stops = []

    def must_stop(run, limit):
        stops.append(run)
        return run._options.time_left is not None and len(stops) % 3 == 0

    monkeypatch.setattr(engine._Run, "_must_stop", must_stop)
    return stack


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
@pytest.mark.parametrize("output_format", ["jsonl", "npy"])
def test_a_file_longer_than_one_invocation(short_invocations, monkeypatch, name, output_format):
    """The rest goes back into the queue with a checkpoint: no row is lost or repeated, the output is one object."""
    stack = short_invocations
    monkeypatch.setattr(stack.handler._scoring, "output_format", output_format)
    rows = make_rows(3000)
    lines = as_jsonl(rows).splitlines(keepends=True)
    lines[10:10] = [b"bad\n"] * 5
    lines[2000:2000] = [b"bad\n"] * 5
    data = b"".join(lines)
    if name.endswith(".gz"):
        import gzip

        data = gzip.compress(data)
    stack.queues.send(notification(name, stack.put(name, data)))
    batches = stack.queues.drain(stack.invoke)
    assert batches > 3
    assert stack.queues.dead() == []
    (summary_key,) = [key for key in stack.list() if key.endswith(".summary.json")]
    summary = json.loads(stack.get(summary_key))
    assert summary["invocations"] == batches
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (3010, 3000, 10)
    (key,) = stack.outputs("." + output_format).values()
    if output_format == "jsonl":
        found = read_jsonl(stack.get(key))
        assert [line["line"] for line in found] == [
            n for n in range(1, 3011) if n not in {*range(11, 16), *range(2001, 2006)}
        ]
        np.testing.assert_array_equal(np.array([line["prediction"] for line in found], np.float32), expected(rows))
    else:
        import io

        found = np.load(io.BytesIO(stack.get(key)))
        assert len(found) == 3010
        np.testing.assert_array_equal(found[~np.isnan(found).any(axis=1)], expected(rows))
    assert not [key for key in stack.list() if key.endswith(".checkpoint")]
    assert stack.s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", []) == []


def test_a_model_that_moves_while_a_file_is_scored(short_invocations, tmp_path):
    """An alias that moves half-way changes nothing: the job is pinned to the version it began with."""
    stack = short_invocations
    rows = make_rows(3000)
    stack.queues.send(notification("a.jsonl", stack.put("a.jsonl", as_jsonl(rows))))
    stack.queues.poll(stack.invoke)
    make_store(tmp_path / "store", version=2, labels=["x", "y", "z"])
    stack.handler._models._pins.clear()  # as if the alias' short memory had run out
    stack.queues.drain(stack.invoke)
    (summary_key,) = [key for key in stack.list() if key.endswith(".summary.json")]
    summary = json.loads(stack.get(summary_key))
    assert summary["model"]["version"] == 1
    assert summary["rows_out"] == 3000
    assert summary["invocations"] > 1


@pytest.mark.parametrize("seed", range(3))
def test_continuations_that_are_delivered_twice_or_crash(short_invocations, seed):
    """A continuation that runs twice, or dies anywhere on its way, still ends in every row once."""
    stack = short_invocations
    chance = random.Random(seed)
    rows = make_rows(2500, seed=seed)
    stack.queues.send(notification("a.jsonl", stack.put("a.jsonl", as_jsonl(rows))))
    stack.fault = lambda operation, key: 503 if chance.random() < 0.02 else None

    def unreliable(event):
        if chance.random() < 0.3:
            stack.invoke(event)
        result = stack.invoke(event)
        if chance.random() < 0.1:
            raise MemoryError
        return result

    # A dead letter would be redriven by an operator: so is it here.
    for _ in range(20):
        stack.queues.drain(unreliable)
        for body in stack.queues.dead():
            stack.queues.send(body)
        if stack.outputs():
            break
    stack.fault = lambda operation, key: None
    stack.queues.drain(stack.invoke)
    found = read_jsonl(stack.get(stack.outputs()["a.jsonl"]))
    assert [line["line"] for line in found] == list(range(1, 2501))
    np.testing.assert_array_equal(np.array([line["prediction"] for line in found], np.float32), expected(rows))


def test_no_time_left_hands_files_back(stack):
    """With too little time to begin another file, its message goes back without counting as a failure."""
    for name in "abc":
        stack.queues.send(notification(f"{name}.jsonl", stack.put(f"{name}.jsonl", as_jsonl(make_rows(5)))))

    class Late:
        aws_request_id = "late"
        answers = iter([100_000, 90_000, *[80_000] * 3])

        def get_remaining_time_in_millis(self):
            return next(self.answers, 1_000)

    batches = stack.queues.drain(lambda event: stack.handler.handler(event, Late()))
    assert batches >= 1
    stack.queues.drain(stack.invoke)
    assert stack.outputs().keys() == {"a.jsonl", "b.jsonl", "c.jsonl"}
    assert stack.queues.dead() == []
