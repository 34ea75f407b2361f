"""A thousand faults over the event path: no row lost, none written twice, the dead letters exactly the poison."""

from __future__ import annotations

import io
import json
import random
from types import SimpleNamespace

import numpy as np

from score_stack import BUCKET, CUT_SHORT, score_stack
from scoring_files import as_jsonl, expected, make_rows, read_jsonl

_FILES = 60
_POISON = [
    "poison",
    '{"Records": [{}]}',
    '{"input": "nowhere"}',
    "[]",
    '{"source": "aws.s3", "detail-type": "Object Created"}',
]
_FAULTS = 1000


def _encode(index, rows):
    if index % 3:
        return "jsonl", as_jsonl(rows)
    stream = io.BytesIO()
    np.save(stream, rows)
    return "npy", stream.getvalue()


class _Trouble:
    """Breaks requests and invocations at random, until there were enough of it, but never a message's last delivery."""

    def __init__(self, stack, max_receive_count):
        self.stack = stack
        self.chance = random.Random(20261123)
        self.faults = {}
        self.allowed = False
        self._last = max_receive_count
        stack.fault = self._break_request

    @property
    def count(self):
        return sum(self.faults.values())

    def note(self, kind):
        self.faults[kind] = self.faults.get(kind, 0) + 1

    def _break_request(self, operation, key):
        draw = self.chance.random()
        if self.allowed and draw < 0.25:
            if operation == "GetObject" and draw < 0.2 and key.startswith("in/"):
                self.note("cut body")
                return CUT_SHORT
            if draw < 0.06:
                self.note(f"503 {operation}")
                return 503
        return None

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


def test_a_thousand_faults(tmp_path, monkeypatch):
    """Throttling, cut bodies, crashes, duplicates, reordering: each file's rows are there once, poison is set apart."""
    monkeypatch.setattr("serving.scoring.s3._ATTEMPTS", 1)
    monkeypatch.setattr("botocore.endpoint.time", SimpleNamespace(sleep=lambda seconds: None))  # back-off is botocore's
    monkeypatch.setattr("serving.scoring.s3._BODY_ATTEMPTS", 12)
    with score_stack(tmp_path, monkeypatch, versioned=True) as stack:
        rows_of = {}
        trouble = _Trouble(stack, max_receive_count=5)
        sent = 0
        while trouble.count < _FAULTS:
            for index in range(sent, sent + _FILES):
                rows = make_rows(20 + index % 50, seed=index)
                ending, data = _encode(index, rows)
                key = f"in/{index:04d}.{ending}"
                rows_of[key] = rows
                answer = stack.s3.put_object(Bucket=BUCKET, Key=key, Body=data)
                found = {"key": key, "etag": answer["ETag"].strip('"'), "version-id": answer["VersionId"]}
                stack.queues.send(
                    {
                        "source": "aws.s3",
                        "detail-type": "Object Created",
                        "detail": {"bucket": {"name": BUCKET}, "object": found},
                    }
                )
            sent += _FILES
            if sent == _FILES:
                for body in _POISON:
                    stack.queues.send(body)
            stack.queues.drain(trouble.invoke)
        assert len(trouble.faults) >= 7
        trouble.allowed = False
        stack.queues.drain(stack.invoke)

        assert set(stack.queues.dead()) == set(_POISON)
        outputs = stack.outputs()
        assert outputs.keys() == rows_of.keys()
        for key, rows in rows_of.items():
            lines = read_jsonl(stack.get(outputs[key]))
            np.testing.assert_array_equal(np.array([line["prediction"] for line in lines], np.float32), expected(rows))
        versions = [
            version["Key"]
            for page in stack.s3.get_paginator("list_object_versions").paginate(Bucket=BUCKET, Prefix="predictions/")
            for version in page.get("Versions", ())
        ]
        written = [key for key in versions if key in set(outputs.values())]
        assert len(written) == len(outputs)
        assert not [key for key in versions if key.endswith(".failure.json")]
        summaries = [json.loads(stack.get(key)) for key in stack.list("predictions/") if key.endswith(".summary.json")]
        assert sum(summary["rows_out"] for summary in summaries) == sum(map(len, rows_of.values()))
