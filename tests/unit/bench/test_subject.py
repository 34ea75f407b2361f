"""The benchmarked model and the requests that are made to it."""

from __future__ import annotations

import hashlib
import json

import pytest

from litelambda.bench.contenders import choose, contenders_for
from litelambda.bench.emulator.object_store import LoopbackS3
from litelambda.bench.events import http_event
from litelambda.bench.subject import largest_difference, load_subject, make_rows, predict_event, read_predictions
from litelambda.common.errors import BenchError, UsageError
from litelambda_serving.tensor import DTYPES, TensorSpec


@pytest.fixture
def store(tmp_path):
    """A store with one version of a model; its flatbuffer is never opened here."""
    tensor = {"name": "image", "dtype": "float32", "shape": [-1, 2, 3], "quantization": None}
    manifest = {
        "format_version": 1,
        "model": "m",
        "version": 4,
        "artifact": "model.tflite",
        "files": {"model.tflite": {"sha256": hashlib.sha256(b"TFL3").hexdigest(), "size_bytes": 4}},
        "default_signature": "predict",
        "signatures": {"predict": {"inputs": [tensor], "outputs": [tensor]}},
    }
    folder = tmp_path / "m" / "4"
    folder.mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "model.tflite").write_bytes(b"TFL3")
    (tmp_path / "m" / "aliases.json").write_text(json.dumps({"latest": 4, "versions": {}}))
    return tmp_path


def test_a_subject_has_all_that_a_handler_fetches(store):
    """Aliases, manifest and artifact are read, and the manifest's digest is that of its bytes."""
    subject = load_subject(store.as_uri(), "m")
    assert set(subject.objects) == {"m/aliases.json", "m/4/manifest.json", "m/4/model.tflite"}
    assert subject.artifact == b"TFL3"
    assert subject.manifest_sha256 == hashlib.sha256((store / "m/4/manifest.json").read_bytes()).hexdigest()
    assert subject.describe()["version"] == 4


def test_a_missing_model_says_how_to_build_it(store):
    """The message names the command."""
    with pytest.raises(BenchError, match=r"litelambda build other`"):
        load_subject(store.as_uri(), "other")


def test_a_store_on_s3_is_read_too(store, monkeypatch):
    """The same subject comes out of a bucket."""
    objects = {f"bucket/p/{path.relative_to(store)}": path.read_bytes() for path in store.rglob("*.*")}
    for name in ("AWS_REGION", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "eu-west-1")
    with LoopbackS3(objects) as s3:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", s3.url)
        subject = load_subject("s3://bucket/p", "m")
    assert subject.objects == load_subject(store.as_uri(), "m").objects


def test_rows_follow_the_signature_and_never_change():
    """Shape and dtype come from the signature, values from a fixed seed."""
    image = TensorSpec("image", DTYPES["float32"], [-1, 2, 3])
    rows = make_rows((image,), 4)
    assert rows == make_rows((image,), 4)
    assert [len(rows), len(rows[0]), len(rows[0][0])] == [4, 2, 3]
    assert all(isinstance(value, float) and 0 <= value <= 1 for row in rows for line in row for value in line)


def test_rows_of_several_inputs_are_objects():
    """With more than one input each row names its values; integers and booleans fit their dtype."""
    specs = (TensorSpec("codes", DTYPES["int8"], [-1, 5]), TensorSpec("flag", DTYPES["bool"], [-1]))
    row = make_rows(specs, 1)[0]
    assert set(row) == {"codes", "flag"}
    assert all(type(code) is int and -128 <= code <= 127 for code in row["codes"])
    assert type(row["flag"]) is bool


def test_the_event_is_an_api_gateway_predict():
    """Path and body are TensorFlow Serving's, in payload format 2.0."""
    event = json.loads(predict_event("m", [[1.0]]))
    assert (event["version"], event["rawPath"]) == ("2.0", "/v1/models/m:predict")
    assert json.loads(event["body"]) == {"prepared": True, "instances": [[1.0]]}
    assert event["isBase64Encoded"] is False


def test_bytes_travel_as_base64():
    """What is not text, or is compressed, is in base64, as API Gateway hands it on."""
    for headers in (
        {"content-type": "application/octet-stream"},
        {"content-type": "text/x", "content-encoding": "gzip"},
    ):
        event = json.loads(http_event("/v1/models/m:predict", headers, b"\xff"))
        assert (event["isBase64Encoded"], event["body"]) == (True, "/w==")


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"statusCode": 500, "body": "no"}, "500"),
        ("text", "text"),
        ({"statusCode": 200, "body": '{"predictions": []}'}, "0 predictions"),
    ],
)
def test_a_wrong_answer_is_not_timed(answer, message):
    """An error is fast: it must not pass for a prediction."""
    with pytest.raises(BenchError, match=message):
        read_predictions(answer, 1, "someone")


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [([1.0, 2.0], [1.5, 2.0], 0.5), ({"a": [1]}, {"a": [1]}, 0), ([1], [1, 2], float("inf")), ([1], "x", float("inf"))],
)
def test_difference_of_predictions(one, other, expected):
    """The largest difference of any number; infinite where the shapes differ."""
    assert largest_difference(one, other) == expected


def test_contenders_are_chosen_by_name(store):
    """In the order asked for; an unknown name is answered with the valid ones."""
    table = contenders_for(load_subject(store.as_uri(), "m"))
    assert [each.name for each in choose(table, "usual,hello")] == ["usual", "hello"]
    assert choose(table, None) == [each for each in table if not each.peer]
    assert choose(table, None, peers=True) == table
    with pytest.raises(UsageError, match=r"hello, litelambda, .*, usual_tflite_runtime, onnxruntime, tensorflow"):
        choose(table, "helo")
