"""Requests by reference: an object in S3 that a request names instead of sending its body."""

from __future__ import annotations

import gzip
import io
import json

import boto3
import numpy as np
import pytest

from litelambda_serving import references
from litelambda_serving.errors import SettingsError
from litelambda_serving.http import Request
from litelambda_serving.settings import Settings
from support.golden_store import golden, publish
from support.handler_client import load_module, send
from support.moto_server import MotoServer

PREDICT, INFER = "/v1/models/half_plus_two:predict", "/v2/models/half_plus_two/infer"
ROWS = {"instances": [1.0, 2.0, 5.0]}
ARRAY = np.arange(3_000_000, dtype="<f4")  # 12 MB: two ranges, and twice what may be sent


@pytest.fixture(scope="module")
def handler(tmp_path_factory):
    """The handler with objects in two buckets, of one of which callers may name some."""
    store = tmp_path_factory.mktemp("store")
    for name in ("half_plus_two", "image_2x3"):
        publish(store, name, data=golden(name))
    with MotoServer() as aws, pytest.MonkeyPatch.context() as patch:
        for name, value in {
            "AWS_ENDPOINT_URL_S3": aws.url,
            "AWS_ACCESS_KEY_ID": "key",
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_REGION": "eu-west-1",
            "AWS_DEFAULT_REGION": "eu-west-1",
        }.items():
            patch.setenv(name, value)
        patch.setattr(references, "_stores", {})
        client = boto3.client("s3")
        for bucket in ("asked", "other"):
            client.create_bucket(Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
            client.put_object(Bucket=bucket, Key="rows/few.json", Body=json.dumps(ROWS))
        client.put_object(Bucket="asked", Key="rows/packed.json", Body=gzip.compress(json.dumps(ROWS).encode()))
        client.put_object(Bucket="asked", Key="rows/large.bin", Body=ARRAY.tobytes())
        npy = io.BytesIO()
        np.save(npy, ARRAY[:3])
        client.put_object(Bucket="asked", Key="rows/few.npy", Body=npy.getvalue(), ContentType="application/x-npy")
        client.put_object(Bucket="asked", Key="rows/v2.json", Body=json.dumps({"inputs": [tensor(3)]}))
        yield load_module(store, REQUEST_STORE="s3://asked/rows").handler


def tensor(rows):
    """V2's input."""
    return {"name": "x", "datatype": "FP32", "shape": [rows], "data": [1.0] * rows}


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        (PREDICT, "few.json", {"predictions": [2.5, 3.0, 4.5]}),
        (PREDICT, "packed.json", {"predictions": [2.5, 3.0, 4.5]}),
        (PREDICT, "few.npy", {"predictions": [2.0, 2.5, 3.0]}),
    ],
)
def test_an_object_is_read_for_a_request(handler, path, key, expected):
    """JSON, compressed or not, and what the object's content type says it is."""
    answer = send(handler, "POST", path, {"s3": f"s3://asked/rows/{key}"})
    assert (answer.status, answer.json()) == (200, expected)


def test_both_protocols_take_names(handler):
    """V2's JSON may be an object too."""
    answer = send(handler, "POST", INFER, {"s3": "s3://asked/rows/v2.json"})
    assert (answer.status, answer.json()["outputs"][0]["data"]) == (200, [2.5] * 3)


def test_a_large_object_comes_in_ranges(handler, monkeypatch):
    """Twice of what may be sent arrives whole; what is too large for the function is refused before it is read."""
    body = json.dumps({"s3": "s3://asked/rows/large.bin"})
    request = Request("POST", PREDICT, {"content-type": "application/octet-stream"}, body.encode())
    request.request_store = "s3://nowhere/else,s3://asked/rows"
    references.resolve(request)
    assert bytes(request.body) == ARRAY.tobytes()
    assert request.headers["content-type"] == "application/octet-stream"  # the object has no type of its own
    headers = {"content-type": "application/octet-stream"}
    answer = send(handler, "POST", "/v1/models/image_2x3:predict", body, headers)
    message = "unexpected size for input 'image': 12000000 bytes, expected a multiple of 72"
    assert (answer.status, answer.json()["error"]) == (400, message)
    monkeypatch.setenv("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "64")
    refused = send(handler, "POST", PREDICT, {"s3": "s3://asked/rows/large.bin"})
    assert (refused.status, "has 12000000 bytes, over the 8388608" in refused.json()["error"]) == (413, True)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("s3://other/rows/few.json", "expected an object of s3://asked/rows/…"),
        ("s3://asked/few.json", "expected an object of s3://asked/rows/…"),
        ("s3://asked/rows-too/few.json", "expected an object of"),
        ("s3://asked/rows/../rows/few.json", "expected an object of"),
        ("s3://asked/rows//few.json", "expected an object of"),
        ("s3://asked/rows/", "expected an object of"),
        ("file:///etc/passwd", "expected an object of"),
        (7, "must be a string"),
        ("s3://asked/rows/missing.json", "s3://asked/rows/missing.json does not exist"),
    ],
)
def test_what_cannot_be_read_is_the_clients_fault(handler, url, message):
    """What is outside, missing or not a name is refused, with what would be right."""
    answer = send(handler, "POST", PREDICT, {"s3": url})
    assert (answer.status, message in answer.json()["error"]) == (400, True)


def test_without_a_store_a_name_is_nothing(tmp_path):
    """By default no request makes the function read anything."""
    publish(tmp_path, "half_plus_two")
    module = load_module(tmp_path)
    answer = send(module.handler, "POST", PREDICT, {"s3": "s3://asked/rows/few.json"})
    assert (answer.status, answer.json()["error"]) == (400, "Missing 'inputs' or 'instances' key")


@pytest.mark.parametrize(
    "value", ["s3://bucket", "s3://bucket/", "file:///data", "bucket/rows", "s3://a/b,,", "s3://a/../b"]
)
def test_the_setting_has_prefixes(value):
    """A whole bucket, or another place, is refused when the function starts."""
    with pytest.raises(SettingsError, match="expected s3://bucket/prefix"):
        Settings.from_environment({"MODEL_STORE": "s3://bucket/models", "REQUEST_STORE": value})
