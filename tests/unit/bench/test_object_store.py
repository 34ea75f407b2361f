"""The loopback S3, read by the clients that the benchmarked handlers use."""

from __future__ import annotations

import time
import urllib.error
import urllib.request

import boto3
import obstore
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError
from obstore.store import S3Store

from litelambda.bench.emulator.object_store import LoopbackS3

DATA = bytes(range(256)) * 1000


@pytest.fixture
def s3():
    """A server with one object."""
    with LoopbackS3({"bucket/models/a b/model.tflite": DATA}) as server:
        yield server


def boto(server):
    """A boto3 client of the server."""
    return boto3.client(
        "s3",
        endpoint_url=server.url,
        region_name="eu-west-1",
        aws_access_key_id="a",
        aws_secret_access_key="b",
        config=Config(retries={"max_attempts": 0}),
    )


def rust(server):
    """An obstore client of the server."""
    return S3Store(
        "bucket",
        prefix="models",
        endpoint=server.url,
        region="eu-west-1",
        access_key_id="a",
        secret_access_key="b",
        client_options={"allow_http": True},
    )


def test_both_clients_read_the_whole_object(s3):
    """A GET through boto3 and one through obstore give the same bytes and entity tag."""
    answer = boto(s3).get_object(Bucket="bucket", Key="models/a b/model.tflite")
    assert answer["Body"].read() == DATA
    result = obstore.get(rust(s3), "a b/model.tflite")
    assert bytes(result.bytes()) == DATA
    assert result.meta["e_tag"] == answer["ETag"]


def test_head_has_the_size_and_no_body(s3):
    """HEAD answers as GET does, without content."""
    answer = boto(s3).head_object(Bucket="bucket", Key="models/a b/model.tflite")
    assert answer["ContentLength"] == len(DATA)


@pytest.mark.parametrize(
    ("header", "expected"), [("bytes=0-9", DATA[:10]), ("bytes=255990-", DATA[255990:]), ("bytes=-7", DATA[-7:])]
)
def test_ranges(s3, header, expected):
    """The three forms of a byte range give 206 and just those bytes."""
    answer = boto(s3).get_object(Bucket="bucket", Key="models/a b/model.tflite", Range=header)
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 206
    assert answer["Body"].read() == expected


def test_obstore_reads_ranges(s3):
    """Ranged reads through obstore, as a parallel download makes them."""
    assert bytes(obstore.get_range(rust(s3), "a b/model.tflite", start=1000, end=3000)) == DATA[1000:3000]


def test_a_range_beyond_the_object_is_refused(s3):
    """A range that starts after the end is 416."""
    with pytest.raises(ClientError, match="416"):
        boto(s3).get_object(Bucket="bucket", Key="models/a b/model.tflite", Range="bytes=256000-")


def test_a_missing_key_is_what_s3_calls_it(s3):
    """Both clients see their own not-found error."""
    with pytest.raises(ClientError, match="NoSuchKey"):
        boto(s3).get_object(Bucket="bucket", Key="models/none")
    with pytest.raises(FileNotFoundError):
        obstore.get(rust(s3), "none")


def test_an_unchanged_object_is_not_sent_again(s3):
    """If-None-Match with the object's entity tag is 304."""
    client = boto(s3)
    etag = client.head_object(Bucket="bucket", Key="models/a b/model.tflite")["ETag"]
    with pytest.raises(ClientError, match="304"):
        client.get_object(Bucket="bucket", Key="models/a b/model.tflite", IfNoneMatch=etag)


def test_writing_is_refused(s3):
    """It is a store to read from: PUT is 405."""
    request = urllib.request.Request(f"{s3.url}/bucket/x", data=b"x", method="PUT")
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=10)
    with caught.value as answer:
        assert answer.code == 405


def test_requests_are_recorded(s3):
    """What was asked for can be counted: round trips are INIT time."""
    bytes(obstore.get(rust(s3), "a b/model.tflite").bytes())
    assert s3.requests == ["GET /bucket/models/a%20b/model.tflite"]


def test_it_is_at_least_as_slow_as_told():
    """Latency and bandwidth are lower bounds of an answer's time."""
    with LoopbackS3({"bucket/models/m": DATA}, latency_ms=30, bytes_per_second=len(DATA) / 0.1) as server:
        store = rust(server)
        started = time.monotonic()
        assert bytes(obstore.get(store, "m").bytes()) == DATA
        # The last piece's share may still be under way when the client has it; the others' are not.
        assert time.monotonic() - started >= 0.03 + 0.05
