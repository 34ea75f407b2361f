"""Captured requests: SageMaker's format, off the request's path, and nothing of what must not be kept."""

from __future__ import annotations

import base64
import calendar
import gzip
import json
import re
import time

import boto3
import numpy as np
import pytest

from litelambda_serving.capture import Capture, CaptureSettings
from litelambda_serving.errors import SettingsError
from litelambda_serving.http import Request, Response
from litelambda_serving.lean_runtime import serve
from support.golden_store import golden, publish
from support.handler_client import load_module, send
from support.moto_server import MotoServer

ROWS = [[0.1, 0.2, 0.3, 0.4]]
COLUMNS = [
    {"name": "age", "type": "number"},
    {"name": "income", "type": "number"},
    {"name": "city", "type": "category", "vocabulary": ["Bern", "Rome"], "encoding": "one_hot", "unknown": "zeros"},
]
PERSON = {"age": 0.5, "income": 0.25, "city": "Rome"}


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A model of four numbers, and the same with the columns of a table."""
    root = tmp_path_factory.mktemp("store")
    publish(root, "own", data=golden("tiny_int8"), labels=["a", "b", "c"])
    table = {"x": {"kind": "table", "label": "risk", "columns": COLUMNS}}
    publish(root, "people", data=golden("tiny_int8"), format_version=2, preprocessing=table)
    return root


@pytest.fixture
def start(store, tmp_path):
    """INIT with a place for captures; what was captured is read when the answer is sent."""

    def start(model="own", **environment):
        environment = {"CAPTURE_STORE": (tmp_path / "kept").as_uri(), "CAPTURE_SECONDS": "0", **environment}
        return load_module(store, model, **environment)

    return start


@pytest.fixture
def captured(tmp_path):
    def read():
        files = sorted((tmp_path / "kept").rglob("*.jsonl"))
        return [json.loads(line) for file in files for line in file.read_text().splitlines()]

    return read


def test_a_record_is_what_sagemaker_documents(start, captured, tmp_path):
    """Keys, nesting, encodings and the object's key are those of data capture; the texts are those of the wire."""
    module = start()
    answer = send(module.handler, "POST", "/v1/models/own:predict", {"instances": ROWS})
    assert captured() == []  # nothing is written before the answer is out
    module.after_response()
    (record,) = captured()
    # As in the developer guide's example of a captured inference request, in JSON instead of its CSV.
    assert record == {
        "captureData": {
            "endpointInput": {
                "observedContentType": "application/json",
                "mode": "INPUT",
                "data": json.dumps({"instances": ROWS}),
                "encoding": "JSON",
            },
            "endpointOutput": {
                "observedContentType": "application/json",
                "mode": "OUTPUT",
                "data": answer.body.decode(),
                "encoding": "JSON",
            },
        },
        "eventMetadata": {
            "eventId": "request-1",
            "inferenceTime": record["eventMetadata"]["inferenceTime"],
            "customAttributes": ["path=/v1/models/own:predict"],
        },
        "eventVersion": "0",
    }
    (file,) = (tmp_path / "kept").rglob("*.jsonl")
    moment = time.strptime(record["eventMetadata"]["inferenceTime"], "%Y-%m-%dT%H:%M:%SZ")
    assert abs(time.time() - calendar.timegm(moment)) < 600
    assert file.parent == tmp_path / "kept" / "own" / "1" / time.strftime("%Y/%m/%d/%H", moment)
    assert re.fullmatch(r"\d\d-\d\d-\d{3}-[0-9a-f]{16}\.jsonl", file.name)


def test_binary_tensors_are_base64(start, captured):
    """V2's binary extension: both bodies as bytes, and the lengths of their JSON, which a replay needs."""
    data = np.array(ROWS, "<f4").tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    module = start()
    headers = {"Inference-Header-Content-Length": str(len(document)), "Content-Type": "application/octet-stream"}
    answer = send(module.handler, "POST", "/v2/models/own/infer", document + data, headers)
    module.after_response()
    (record,) = captured()
    for side, body in (("endpointInput", document + data), ("endpointOutput", answer.body)):
        assert record["captureData"][side]["encoding"] == "BASE64"
        assert base64.b64decode(record["captureData"][side]["data"]) == body
    assert record["eventMetadata"]["customAttributes"] == [
        "path=/v2/models/own/infer",
        f"inference-header-content-length={len(document)}",
        f"response-inference-header-content-length={answer.headers['inference-header-content-length']}",
    ]


def test_compressed_bodies_are_kept_as_what_they_say(start, captured):
    """Request and answer are written as they were before gzip."""
    module = start()
    body = gzip.compress(json.dumps({"instances": ROWS * 100}).encode())
    headers = {"Content-Encoding": "gzip", "Accept-Encoding": "gzip"}
    answer = send(module.handler, "POST", "/v1/models/own:predict", body, headers)
    module.after_response()
    (record,) = captured()
    assert answer.headers["content-encoding"] == "gzip"
    assert json.loads(record["captureData"]["endpointInput"]["data"]) == {"instances": ROWS * 100}
    assert record["captureData"]["endpointOutput"]["data"] == gzip.decompress(answer.body).decode()


@pytest.mark.parametrize(
    ("path", "body", "kept"),
    [
        ("/v1/models/people:predict", {"instances": [PERSON]}, {"instances": [{**PERSON, "income": None}]}),
        (
            "/v1/models/people:predict",
            {"inputs": {"age": [1], "income": [2], "city": ["Bern"]}},
            {"inputs": {"age": [1], "income": None, "city": ["Bern"]}},
        ),
        ("/v1/models/people:predict", {"instances": [list(PERSON.values())]}, None),
        (
            "/v1/models/people:predict",
            {"instances": [{"x": [1, 2, 1, 0]}], "prepared": True},
            {"instances": [{"x": None}], "prepared": True},
        ),
        ("/v1/models/people:predict", {"instances": [[1, 2, 1, 0]], "prepared": True}, None),
        (
            "/v2/models/people/infer",
            {
                "inputs": [
                    {"name": "age", "datatype": "FP32", "shape": [1, 1], "data": [1.0]},
                    {"name": "income", "datatype": "FP32", "shape": [1, 1], "data": [7.0]},
                    {"name": "city", "datatype": "BYTES", "shape": [1, 1], "data": ["Bern"]},
                ]
            },
            {
                "inputs": [
                    {"name": "age", "datatype": "FP32", "shape": [1, 1], "data": [1.0]},
                    {"name": "income", "datatype": "FP32", "shape": [1, 1], "data": None},
                    {"name": "city", "datatype": "BYTES", "shape": [1, 1], "data": ["Bern"]},
                ]
            },
        ),
        ("/v1/models/own:predict", {"instances": ROWS}, {"instances": ROWS}),
    ],
    ids=["rows", "columns", "row-lists", "prepared", "prepared-lists", "v2", "other-model"],
)
def test_redacted_fields_are_not_kept(start, captured, path, body, kept):
    """A value is left out by its field's name; a request that has it without its name is not kept at all."""
    module = start("people", CAPTURE_REDACT="income, phone")
    assert send(module.handler, "POST", path, body).status == 200
    module.after_response()
    records = captured()
    assert [json.loads(each["captureData"]["endpointInput"]["data"]) for each in records] == ([kept] if kept else [])


def test_binary_bodies_with_redacted_fields_are_not_kept(start, captured, capsys):
    """Bytes have no names: a model with a redacted field has none of them captured, and the log says so."""
    module = start("people", CAPTURE_REDACT="income")
    row = np.array([1, 2, 1, 0], "<f4").tobytes()
    tensor = {"name": "x", "datatype": "FP32", "shape": [1, 4], "parameters": {"binary_data_size": 16}}
    document = json.dumps({"inputs": [tensor], "parameters": {"prepared": True}}).encode()
    headers = {"Inference-Header-Content-Length": str(len(document))}
    assert send(module.handler, "POST", "/v2/models/people/infer", document + row, headers).status == 200
    module.after_response()
    assert captured() == []
    assert "requests not captured: 1, which may have fields of CAPTURE_REDACT" in capsys.readouterr().out


def test_what_is_too_large_is_not_kept(start, captured, capsys):
    """The size cap holds for a request; a smaller one beside it is kept, and the log counts the others."""
    module = start(CAPTURE_MAX_KB="1")
    for rows in (100, 1):
        assert send(module.handler, "POST", "/v1/models/own:predict", {"instances": ROWS * rows}).status == 200
    module.after_response()
    assert [each["captureData"]["endpointInput"]["data"] for each in captured()] == [json.dumps({"instances": ROWS})]
    assert "requests not captured: 1, larger than CAPTURE_MAX_KB" in capsys.readouterr().out


def test_predictions_alone_are_kept(start, captured):
    """Metadata, health and refused requests are not captured."""
    module = start()
    for method, path, body in (
        ("GET", "/healthz", None),
        ("GET", "/v1/models/own", None),
        ("POST", "/v1/models/own:predict", {"instances": [[1]]}),
        ("POST", "/v1/models/none:predict", {"instances": ROWS}),
    ):
        send(module.handler, method, path, body)
    module.after_response()
    assert captured() == []


def test_a_share_is_kept():
    """Of 4,000 predictions at 25 %, within five standard deviations of 1,000."""
    capture = Capture(
        CaptureSettings({"CAPTURE_STORE": "file:///nowhere", "CAPTURE_PERCENT": "25"}), lambda *_: None, print
    )
    for _ in range(4000):
        capture.add(Request("POST", "/", {}, b"{}"), Response(200, "{}", route="predict", model="m", version=1), "id")
    assert abs(len(capture._kept) - 1000) < 5 * (4000 * 0.25 * 0.75) ** 0.5


def test_without_the_lean_bootstrap_the_next_request_writes(start, captured):
    """Nothing calls `after_response` there: a thread that the next request starts writes, and does not hold it up."""
    module = start()
    for _ in range(2):
        send(module.handler, "POST", "/v1/models/own:predict", {"instances": ROWS})
    module._recorder._writing.result()
    assert len(captured()) == 1


def test_a_store_that_refuses_fails_no_request(start, capsys, tmp_path):
    """What cannot be written is lost with a warning; requests are answered as before."""
    (tmp_path / "kept").write_text("a file where the folder should be")
    module = start()
    for _ in range(2):
        assert send(module.handler, "POST", "/v1/models/own:predict", {"instances": ROWS}).status == 200
        module.after_response()
    assert capsys.readouterr().out.count("captured requests lost: 1; cannot write") == 2


def test_off_is_nothing(store, monkeypatch):
    """Without the setting there is nothing to call after a response."""
    monkeypatch.delenv("CAPTURE_STORE", raising=False)
    module = load_module(store, "own")
    assert (module.after_response, module._recorder) == (None, None)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"CAPTURE_STORE": "bucket/prefix"}, "expected file:///path, s3://bucket/prefix"),
        ({"CAPTURE_PERCENT": "101"}, "CAPTURE_PERCENT is '101', expected a number from 0 to 100"),
        ({"CAPTURE_MAX_KB": "all"}, "CAPTURE_MAX_KB is 'all', expected a number from 0 to 6144"),
    ],
)
def test_wrong_settings_say_what_they_may_be(values, message):
    """Each impossible value is refused by name."""
    with pytest.raises(SettingsError, match=message):
        CaptureSettings({"CAPTURE_STORE": "s3://bucket/kept", **values})


class FakeRuntimeApi:
    """Notes in which order the runtime client is called; ends after one invocation."""

    def __init__(self):
        self.calls = []

    def next(self):
        self.calls.append("next")
        if len(self.calls) > 1:
            raise EndError
        return {"lambda-runtime-aws-request-id": "1"}, b"{}"

    def respond(self, *_):
        self.calls.append("respond")


class EndError(Exception):
    pass


def test_the_lean_bootstrap_calls_it_between_the_answer_and_the_wait():
    """The caller has the answer, and the environment is not frozen before it asks for the next invocation."""
    api = FakeRuntimeApi()
    with pytest.raises(EndError):
        serve(api, lambda event, context: {}, lambda: api.calls.append("after"))
    assert api.calls == ["next", "respond", "after", "next"]


def test_captures_go_to_s3(monkeypatch):
    """An object is written whole, below the prefix, through the client that reads artifacts."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-west-1")
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket="kept", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        capture = Capture(
            CaptureSettings({"CAPTURE_STORE": "s3://kept/of/fruit", "CAPTURE_SECONDS": "0"}), lambda *_: None, print
        )
        response = Response(200, '{"predictions":[1]}', route="predict", model="m", version=3)
        capture.add(Request("POST", "/v1/models/m:predict", {}, b'{"instances":[1]}'), response, "id")
        assert capture.is_due
        capture.write(capture.take())
        (found,) = client.list_objects_v2(Bucket="kept")["Contents"]
        assert found["Key"].startswith("of/fruit/m/3/")
        record = json.loads(client.get_object(Bucket="kept", Key=found["Key"])["Body"].read())
        assert record["captureData"]["endpointInput"]["data"] == '{"instances":[1]}'
        assert not capture.is_due
