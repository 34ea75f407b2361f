"""Faults over the event path: no row lost, none written twice, the dead letters exactly what cannot be done.

    LITELAMBDA_FAULTS=10000 LITELAMBDA_FAULTS_SEED=7 pytest -s tests/integration/test_score_faults.py

Five hundred of them by default. They are made on the wire: answers that are refusals, that are lost after the work was
done, that stop half-way, or that never come; and by the queue: crashes, duplicates, another order.
"""

from __future__ import annotations

import io
import json
import logging
import os
import random
from types import SimpleNamespace

import numpy as np

from support.faulty_aws import CLOSED, CONFLICT, CUT_BODY, LOST_ANSWER, SLOW_DOWN, Fault, faulty_stack
from support.score_stack import BUCKET
from support.scoring_files import as_jsonl, expected, make_rows, read_jsonl

_FAULTS = int(os.environ.get("LITELAMBDA_FAULTS", "500"))
_SEED = int(os.environ.get("LITELAMBDA_FAULTS_SEED", "20261128"))
_FILES = 60
_DONE_AND_CLOSED = Fault(is_done=True)
_ARCHIVED = Fault(403, "InvalidObjectState")
_IMPOSSIBLE = [
    "poison",
    '{"Records": [{}]}',
    '{"input": "nowhere"}',
    "[]",
    '{"source": "aws.s3", "detail-type": "Object Created"}',
    f'{{"input": "s3://{BUCKET}/in/0000.npy", "output": "s3://no-such-bucket/out/"}}',
    f'{{"input": "s3://{BUCKET}/in/none.jsonl", "output": "s3://no-such-bucket/out/"}}',
    f'{{"input": "file:///etc/hostname", "output": "s3://{BUCKET}/out/"}}',
    f'{{"input": "s3://{BUCKET}/in/0000.npy", "output": "file:///tmp/out/"}}',
]
_UNSCORABLE = {
    "in/archived.jsonl": (b"[1,2,3,4]\n", "InputRefusedError"),
    "in/damaged.npy": (b"\x93NUMPY\x01\x00\x10\x00{'descr': ((((\n", "UnreadableInputError"),
    "in/bad.jsonl": (b"nonsense\n" * 5, "TooManyBadRowsError"),
}


class _Trouble:
    """Breaks requests and invocations at random, until there were enough of it, but never a message's last delivery."""

    def __init__(self, stack, aws, max_receive_count):
        self.stack = stack
        self.chance = random.Random(_SEED)
        self.faults = {}
        self.allowed = False
        self._last = max_receive_count
        aws.fault = self._break_request

    @property
    def count(self):
        return sum(self.faults.values())

    def note(self, kind):
        self.faults[kind] = self.faults.get(kind, 0) + 1

    def _break_request(self, operation, path):
        if operation == "GetObject" and path == f"{BUCKET}/in/archived.jsonl":
            return _ARCHIVED
        if not self.allowed or self.chance.random() > 0.5:
            return None
        faults = {"503": SLOW_DOWN, "closed": CLOSED}
        if operation == "GetObject" and path.startswith(f"{BUCKET}/in/"):
            faults["cut"] = CUT_BODY
        if operation == "PutObject":
            faults |= {"409": CONFLICT, "lost answer": LOST_ANSWER, "done and closed": _DONE_AND_CLOSED}
        name = self.chance.choice(list(faults))
        self.note(f"{name} {operation}")
        return faults[name]

    def invoke(self, event):
        """One invocation of the function, as unlucky as it may be."""
        counts = [int(record["attributes"]["ApproximateReceiveCount"]) for record in event["Records"]]
        self.allowed = max(counts) < self._last and self.count < _FAULTS
        if self.allowed and self.chance.random() < 0.3:
            self.note("delivered twice")
            self.stack.invoke(event)
        if self.allowed and self.chance.random() < 0.3:
            self.note("reordered")
            event["Records"].reverse()
        result = self.stack.invoke(event)
        if self.allowed and self.chance.random() < 0.15:
            self.note("crash before acknowledge")
            raise MemoryError
        if self.allowed and self.chance.random() < 0.3:
            self.note("sent again")
            self.stack.queues.send(self.chance.choice(event["Records"])["body"])
        return result


def _encode(index, rows):
    if index % 3:
        return "jsonl", as_jsonl(rows)
    stream = io.BytesIO()
    np.save(stream, rows)
    return "npy", stream.getvalue()


def _send(stack, key, data):
    answer = stack.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
    found = {"key": key, "etag": answer["ETag"].strip('"'), "version-id": answer["VersionId"]}
    detail = {"bucket": {"name": BUCKET}, "object": found}
    stack.queues.send({"source": "aws.s3", "detail-type": "Object Created", "detail": detail})


def _check_each_row_is_there_once(stack, rows_of):
    outputs = stack.outputs()
    assert outputs.keys() == rows_of.keys()
    found = [line["prediction"] for key in rows_of for line in read_jsonl(stack.get(outputs[key]))]
    np.testing.assert_array_equal(np.array(found, np.float32), expected(np.concatenate(list(rows_of.values()))))
    versions = [
        version["Key"]
        for page in stack.s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix="predictions/")
        for version in page.get("Versions", ())
    ]
    written = [key for key in versions if key in set(outputs.values())]
    assert len(written) == len(outputs), "an output was written twice"
    assert len([key for key in stack.list("predictions/") if key.endswith(".summary.json")]) == len(outputs)


def _check_what_cannot_be_done(stack, records):
    dead = stack.queues.dead()
    assert set(dead) == set(_IMPOSSIBLE), "exactly what cannot be done"
    lines = [str(record.exc_info[1]) for record in records if "will be tried again" in record.message]
    for word in (
        "not JSON",
        "of the event",
        "'nowhere'",
        "expected an event",
        "no-such-bucket",
        "file:///etc",
        "file:///tmp",
    ):
        assert any(word in line for line in lines), f"no line says {word}"
    reports = [json.loads(stack.get(key)) for key in stack.list() if key.endswith(".failure.json")]
    told = {report["job"]["input"].removeprefix(f"s3://{BUCKET}/"): report["error"] for report in reports}
    assert told == {key: error for key, (_, error) in _UNSCORABLE.items()}


def test_thousands_of_faults(tmp_path, monkeypatch, caplog):
    """Each file's rows are there once, what cannot be scored has a report, what cannot be done is a dead letter."""
    monkeypatch.setattr(logging.getLogger("werkzeug"), "level", logging.ERROR)  # a line for each request
    monkeypatch.setattr("litelambda_serving.objects.s3_requests._ATTEMPTS", 2)  # the second meets what the first did
    monkeypatch.setattr("litelambda_serving.objects.s3_requests._CONFLICT_PAUSE_S", 0)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))  # back-off is botocore's
    with faulty_stack(tmp_path, monkeypatch) as (stack, aws), caplog.at_level(logging.WARNING):
        rows_of = {}
        trouble = _Trouble(stack, aws, max_receive_count=5)
        for key, (data, _) in _UNSCORABLE.items():
            _send(stack, key, data)
        for body in _IMPOSSIBLE:
            stack.queues.send(body)
        while trouble.count < _FAULTS:
            for index in range(len(rows_of), len(rows_of) + _FILES):
                rows = make_rows(3 + index % 20, seed=index)
                ending, data = _encode(index, rows)
                rows_of[f"in/{index:04d}.{ending}"] = rows
                _send(stack, f"in/{index:04d}.{ending}", data)
            stack.queues.drain(trouble.invoke)
        trouble.allowed = False
        stack.queues.drain(stack.invoke)
        assert len(trouble.faults) >= 12
        print(f"{trouble.count} faults of {len(rows_of)} files, seed {_SEED}: {dict(sorted(trouble.faults.items()))}")  # noqa: T201 - figures, with -s
        _check_each_row_is_there_once(stack, rows_of)
        _check_what_cannot_be_done(stack, caplog.records)
