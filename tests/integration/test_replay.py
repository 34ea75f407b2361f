"""A capture sent to another version: what changed, row by row, and what is read of others' captures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from litelambda.cli.main import main
from litelambda.client import Client
from litelambda.commands.replay import replay
from litelambda.common.errors import DataError, UsageError
from litelambda_serving.asgi import Application
from support.golden_store import golden, publish, set_aliases
from support.handler_client import load_module, send
from support.server import running

PREFIX = "/_aws/execute-api/a1b2"  # of an emulator's paths
SCALED = {"x": {"kind": "numbers", "scale": 3.0, "offset": 0.0}}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """Two versions of a model, the second of which scales what it is asked; a third takes other rows."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "fruit", 1, data=golden("tiny_int8"))
    publish(root, "fruit", 2, data=golden("tiny_int8"), format_version=2, preprocessing=SCALED)
    publish(root, "fruit", 3, data=golden("image_2x3"))
    set_aliases(root, {"latest": 1}, "fruit")
    return root


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(4).normal(0, 1, (40, 4)).astype(np.float32)


@pytest.fixture(scope="module")
def capture(store, rows, tmp_path_factory):
    """Version 1's answers: rows one by one, some together, and binary ones."""
    folder = tmp_path_factory.mktemp("captured")
    module = load_module(store, "fruit", CAPTURE_STORE=folder.as_uri(), CAPTURE_SECONDS="0")
    module.after_response()  # a runtime that calls it: nothing is written by a thread, which could still be at it below
    for row in rows[:20]:
        send(module.handler, "POST", "/v1/models/fruit:predict", {"instances": [row.tolist()]})
    send(module.handler, "POST", "/v1/models/fruit:predict", {"inputs": rows[20:30].tolist()})
    tensor = {"name": "x", "datatype": "FP32", "shape": [10, 4], "parameters": {"binary_data_size": 160}}
    document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(document))}
    send(module.handler, "POST", "/v2/models/fruit/infer", document + rows[30:].tobytes(), headers)
    module.after_response()
    return folder


@pytest.fixture(scope="module")
def answers(store, rows):
    """What both versions answer to all rows, asked at once."""
    module = load_module(store, "fruit")
    found = []
    for version in (1, 2):
        answer = send(
            module.handler, "POST", f"/v1/models/fruit/versions/{version}:predict", {"instances": rows.tolist()}
        )
        found.append(np.array(answer.json()["predictions"]))
    return found


def test_the_same_version_answers_the_same(store, capture):
    """Every request of both protocols, in JSON and in binary, is answered as it was."""
    result = replay(capture, "fruit:1", store=store)
    assert (result.requests, result.rows, result.is_same) == (22, 40, True)
    assert (result.largest_difference, result.changes) == (0.0, [])


def test_another_version_is_compared_row_by_row(store, capture, answers):
    """Changed rows, flipped classes and the largest difference are those that numpy finds."""
    before, after = answers
    apart = np.abs(before - after).max(axis=1)
    result = replay(capture, "fruit:2", store=store, limit=3)
    assert (result.rows, result.changed) == (40, int((apart > 0).sum()))
    assert result.flipped == int((before.argmax(axis=1) != after.argmax(axis=1)).sum()) > 0
    assert result.largest_difference == pytest.approx(apart.max())
    assert [change.difference for change in result.changes] == pytest.approx(sorted(apart)[::-1][:3])
    tolerant = replay(capture, "fruit:2", store=store, tolerance=float(np.median(apart)))
    assert tolerant.changed == int((apart > np.median(apart)).sum())


def test_what_another_version_refuses_is_counted(store, capture):
    """A request that it does not take is a change with its message, and is not compared."""
    result = replay(capture, "fruit:3", store=store)
    assert (result.refused, result.rows) == (22, 0)
    assert all(change.message.startswith("400: ") for change in result.changes)


def test_the_command_exits_with_1_where_something_changed(store, capture, capsys):
    """0 for the same answers; the document has the figures, and the changes as JSON."""
    asked = ["replay", str(capture), "--store", str(store), "--json", "--model"]
    assert main([*asked, "fruit:1"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is True
    assert main([*asked, "fruit:2", "--limit", "1"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["changes"][0].keys() == {"difference", "event_id", "row", "before", "after"}
    assert main([*asked[:-2], "--model", "fruit:2"]) == 1
    assert "40 rows" in capsys.readouterr().out


def test_a_service_at_a_url_is_asked(store, capture):
    """The same over HTTP, where the capture's own version answers, by its alias in both protocols too."""
    with running(Application(load_module(store, "fruit"))) as port:
        for end, model in (("/v1/models/fruit", ""), ("", "fruit@latest")):
            result = replay(capture, model, service=Client(f"http://127.0.0.1:{port}{end}"))
            assert (result.requests, result.rows, result.is_same) == (22, 40, True)


class SignedOnly:
    """An application that lets in what is signed with the user's key, as API Gateway does with IAM authorization."""

    def __init__(self, application):
        self.application = application

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            return await self.application(scope, receive, send)
        message = await receive()
        while message.get("more_body"):
            part = await receive()
            message = {**part, "body": message["body"] + part["body"]}
        if not self._is_signed(scope, message["body"]):
            start = {"type": "http.response.start", "status": 403, "headers": []}
            await send(start)
            return await send({"type": "http.response.body", "body": b'{"message":"Forbidden"}'})

        async def again():
            return message

        path = scope["path"].removeprefix(PREFIX)
        return await self.application({**scope, "path": path, "raw_path": path.encode()}, again, send)

    def _is_signed(self, scope, body):
        sent = {name.decode(): value.decode() for name, value in scope["headers"]}
        url = f"http://{sent['host']}{scope['path']}"
        names = ("content-type", "x-amz-date", "x-amz-security-token")
        request = AWSRequest("POST", url, {name: sent[name] for name in names if name in sent}, body)
        request.context["timestamp"] = sent.get("x-amz-date", "")
        signer = SigV4Auth(Credentials("AKIDEXAMPLE", "secret"), "execute-api", "eu-west-1")
        expected = signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request)
        return sent.get("authorization", "").endswith(f"Signature={expected}")


def test_requests_to_aws_are_signed(store, capture, monkeypatch, capsys):
    """JSON and binary requests pass where botocore finds their signatures right; with a wrong key it ends at once."""
    asked = ["replay", str(capture), "--model", "fruit", "--url", "https://a1b2.execute-api.eu-west-1.amazonaws.com"]
    with running(SignedOnly(Application(load_module(store, "fruit")))) as port:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        for name, value in (("ACCESS_KEY_ID", "AKIDEXAMPLE"), ("SECRET_ACCESS_KEY", "secret"), ("SESSION_TOKEN", "t")):
            monkeypatch.setenv(f"AWS_{name}", value)
        assert main(asked) == 0
        assert "22 requests, 40 rows: 0 changed" in capsys.readouterr().out
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
        assert main(asked) == 1
        assert "answered 403: Forbidden" in capsys.readouterr().err
    assert main([*asked, "--code", "mine.py"]) == 2


def test_sagemakers_own_records_are_read(store, answers, rows, tmp_path):
    """A record as its developer guide shows it, in CSV and without a path, is a prediction of V1."""
    record = {
        "captureData": {
            "endpointInput": {
                "observedContentType": "text/csv",
                "mode": "INPUT",
                "data": ",".join(map(str, rows[0].tolist())),
                "encoding": "CSV",
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": json.dumps({"predictions": answers[0][:1].tolist()}),
                "encoding": "JSON",
            },
        },
        "eventMetadata": {"eventId": "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee", "inferenceTime": "2018-02-20T00:02:50Z"},
        "eventVersion": "0",
    }
    path = tmp_path / "capture.jsonl"
    path.write_text(json.dumps(record) + "\n")
    assert replay(path, "fruit:1", store=store).is_same


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there is nothing to read"),
        ("{}\n", "capture.jsonl, line 1: not a record of a capture"),
        ("not JSON\n", "line 1: not a record of a capture"),
    ],
)
def test_other_files_are_refused(store, tmp_path, text, message):
    """What is not a capture is an error with its place."""
    path = tmp_path / "capture.jsonl"
    if text:
        path.write_text(text)
    with pytest.raises(DataError, match=message):
        replay(path, "fruit:1", store=store)


def test_a_url_names_a_model(tmp_path):
    """A service's address alone does not say what to ask."""
    with pytest.raises(UsageError, match="name the model: the URL and the stack do not"):
        replay(tmp_path, "", service=Client("http://localhost:1/"))


def test_a_large_capture_is_read_in_chunks(store, capture, tmp_path):
    """Lines that a chunk's end cuts are whole again; a folder's files follow each other."""
    (line,) = [path.read_text().splitlines()[0] for path in sorted(Path(capture).rglob("*.jsonl"))][:1]
    wide = json.loads(line)
    wide["eventMetadata"]["padding"] = "x" * 700_000
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_text("\n".join([json.dumps(wide)] * 2))
    assert replay(tmp_path, "fruit:1", store=store).requests == 4
