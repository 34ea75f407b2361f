"""Reading stores and fetching artifacts: from a folder, from moto's S3 server, and from an S3 in trouble."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import random
import re
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import boto3
import certifi
import pytest

from litelambda.common.paths import FUNCTIONS
from litelambda_serving import errors, s3_store
from litelambda_serving.aliases import Aliases
from litelambda_serving.artifact import fetch_artifact
from litelambda_serving.background import Background
from litelambda_serving.digest import hexdigest
from litelambda_serving.objects import objects_for
from litelambda_serving.store import open_store, split_store_url
from support.faulty_s3 import CUT_SHORT, faulty_s3, refusing_s3
from support.golden_store import golden, make_manifest, publish
from support.moto_server import MotoServer


@pytest.fixture
def folder(tmp_path):
    publish(tmp_path, "tiny_int8")
    return tmp_path


@pytest.fixture
def aws(monkeypatch):
    """Credentials and a region, as a function has them in its environment."""
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_REGION": "eu-west-1",
        "AWS_DEFAULT_REGION": "eu-west-1",
    }.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def quick_retries(monkeypatch):
    """One retry only: the tests of outages need not wait as long as a function may."""
    monkeypatch.setattr(s3_store, "_RETRIES", 1)


@pytest.fixture
def aws_with_one_retry(aws, quick_retries, monkeypatch):
    """The environment, to add an endpoint to."""
    return monkeypatch


@pytest.fixture
def moto_s3(aws, monkeypatch):
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        client = boto3.client("s3")
        client.create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield client


def objects_of(root) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def upload(client, root) -> None:
    for key, body in objects_of(root).items():
        client.put_object(Bucket="bucket", Key=f"models/{key}", Body=body)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("file:///srv/models/", ("file", "", "/srv/models")),
        ("s3://bucket", ("s3", "bucket", "")),
        ("s3://bucket/a/b/", ("s3", "bucket", "a/b")),
    ],
)
def test_store_urls(url, parts):
    """The two kinds of store URL."""
    assert split_store_url(url) == parts


@pytest.mark.parametrize("url", ["", "models", "file://relative", "s3://", "s3:///x", "ftp://host/x"])
def test_other_urls_are_refused(url):
    """Anything else is refused with the two forms that are taken."""
    with pytest.raises(
        errors.SettingsError, match="expected file:///path, s3://bucket/prefix, gs://bucket/prefix or az://"
    ):
        open_store(url)


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("s3://bucket/a//b", "'//', '.' or '..' in its prefix"),
        ("s3://bucket/a/../b", "'//', '.' or '..' in its prefix"),
        ("s3://bucket/.", "'//', '.' or '..' in its prefix"),
        ("s3://arn:aws:s3:eu-west-1:111122223333:accesspoint/mine/models", "the access point's alias"),
        ("s3://models--euw1-az1--x-s3/models", "use a general purpose bucket"),
    ],
)
def test_places_that_would_be_misread_are_refused(url, reason):
    """A prefix that the S3 client cannot have, an ARN and a directory bucket are refused by whoever reads or writes."""
    with pytest.raises(errors.SettingsError, match=reason):
        open_store(url)
    if "prefix" not in reason:  # a key of an input may have such parts: only a store's prefix may not
        with pytest.raises(errors.SettingsError, match=reason):
            objects_for(url)


def test_files_are_read(folder):
    """A file's bytes come as they are, and a missing one is its own error."""
    files = open_store(folder.as_uri())
    assert bytes(files.fetch("tiny_int8/1/model.tflite", 10**6)) == golden("tiny_int8")
    with pytest.raises(errors.ObjectNotFoundError, match="no file"):
        files.fetch("tiny_int8/2/model.tflite", 10**6)
    with pytest.raises(errors.StoreError, match="at most 10 were expected"):
        files.fetch("tiny_int8/1/model.tflite", 10)
    with pytest.raises(errors.StoreError):
        files.fetch("tiny_int8/1", 10**6)
    (folder / "empty").touch()
    assert bytes(files.fetch("empty", 10)) == b""


@pytest.mark.parametrize("change", ["rewritten", "truncated"])
def test_what_was_verified_is_what_is_run(tmp_path, change):
    """A model's file that is rewritten or cut while the model is in use changes nothing of it, and crashes nothing."""
    content = random.Random(0).randbytes(1 << 20)
    (tmp_path / "model").write_bytes(content)
    data, digest = open_store(tmp_path.as_uri()).fetch_digested("model", 1 << 21)
    with (tmp_path / "model").open("r+b") as file:
        file.truncate(0 if change == "truncated" else None)
        if change == "rewritten":
            file.write(bytes(len(content)))
    assert digest == hashlib.sha256(content).hexdigest()
    assert bytes(data) == content


def test_a_file_that_becomes_shorter_while_it_is_read_is_refused(tmp_path, monkeypatch):
    """Half a model is an error, not a model."""
    (tmp_path / "model").write_bytes(bytes(1 << 20))
    read = os.readv

    def cut(descriptor, buffers):
        os.truncate(tmp_path / "model", 1 << 19)
        return read(descriptor, buffers)

    monkeypatch.setattr(os, "readv", cut)
    with pytest.raises(errors.StoreError, match="became shorter while it was read: 524288 of 1048576"):
        open_store(tmp_path.as_uri()).fetch_digested("model", 1 << 21)


def test_a_bundled_model_costs_no_copy(tmp_path, monkeypatch):
    """A file of the deployed package, which is immutable, is mapped; a link that leads out of the package is not."""
    package, elsewhere = tmp_path / "task", tmp_path / "elsewhere"
    for place in (package, elsewhere):
        place.mkdir()
        (place / "model").write_bytes(bytes(1 << 20))
    (package / "link").symlink_to(elsewhere / "model")
    monkeypatch.setenv("LAMBDA_TASK_ROOT", str(package))
    store = open_store(package.as_uri())
    mapped, _ = store.fetch_digested("model", 1 << 21)
    copied, _ = store.fetch_digested("link", 1 << 21)
    lines = Path("/proc/self/maps").read_text() if Path("/proc/self/maps").exists() else None
    if lines is None:
        pytest.skip("the system does not list what is mapped")
    assert str(package / "model") in lines
    assert str(elsewhere / "model") not in lines
    assert bytes(mapped) == bytes(copied)


def test_file_store_url_may_be_percent_encoded(tmp_path):
    """A path with a space is a URL with %20."""
    folder = tmp_path / "my models"
    publish(folder, "tiny_int8")
    assert fetch_artifact(open_store(folder.as_uri()), "tiny_int8").manifest.version == 1


def test_s3_through_the_handlers_own_client(moto_s3, folder):
    """An artifact comes out of S3 as it went in, by alias, by number and pinned."""
    upload(moto_s3, folder)
    remote = open_store("s3://bucket/models")
    digest = hashlib.sha256((folder / "tiny_int8/1/manifest.json").read_bytes()).hexdigest()
    for version, pin in (("latest", ""), ("1", ""), ("1", digest)):
        artifact = fetch_artifact(remote, "tiny_int8", version, pin)
        assert bytes(artifact.model) == golden("tiny_int8")
    with pytest.raises(errors.ObjectNotFoundError):
        remote.fetch("nothing", 10)
    with pytest.raises(errors.ModelNotFoundError):
        fetch_artifact(remote, "nothing")


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (403, errors.StoreAccessError, "needs s3:GetObject"),
        (401, errors.StoreAccessError, "needs s3:GetObject"),
        (500, errors.StoreUnavailableError, "could not deliver"),
        (503, errors.StoreUnavailableError, "could not deliver"),
        (CUT_SHORT, errors.StoreUnavailableError, "could not deliver"),
    ],
)
def test_an_s3_in_trouble(aws, quick_retries, monkeypatch, folder, fault, kind, message):
    """Refusals, outages and cut bodies of the artifact each raise their own error."""
    with faulty_s3(objects_of(folder), lambda key: fault if key.endswith("model.tflite") else None) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(kind, match=message):
            fetch_artifact(open_store("s3://bucket"), "tiny_int8")


ACCESS, LOCATION = errors.StoreAccessError, errors.StoreLocationError


@pytest.mark.parametrize(
    ("status", "document", "region", "kind", "message"),
    [
        (404, "<Code>NoSuchBucket</Code>", None, LOCATION, "the bucket 'bucket' does not exist: correct the store URL"),
        (400, "<Code>AuthorizationHeaderMalformed</Code><Region>eu-north-1</Region>", None, LOCATION,
         "in the region eu-north-1, and was asked for in eu-west-1: deploy"),
        (301, "<Code>PermanentRedirect</Code>", "ap-south-1", LOCATION, "in the region ap-south-1, and was"),
        (301, "<Code>PermanentRedirect</Code>", None, LOCATION, "in another region"),
        (400, "<Code>ExpiredToken</Code>", None, ACCESS, "(ExpiredToken): the credentials have expired: renew"),
        (403, "<Code>ExpiredToken</Code>", None, ACCESS, "(ExpiredToken): the credentials have expired: renew"),
        (400, "<Code>InvalidToken</Code>", None, ACCESS, "(InvalidToken): the session token is not valid"),
        (403, "<Code>InvalidAccessKeyId</Code>", None, ACCESS, "(InvalidAccessKeyId): the access key is unknown"),
        (403, "<Code>SignatureDoesNotMatch</Code>", None, ACCESS, "the secret key does not fit"),
        (403, "<Code>RequestTimeTooSkewed</Code>", None, ACCESS, "clock is wrong"),
        (403, "<Code>AccessDenied</Code>", None, ACCESS, "(AccessDenied): the function's role needs s3:GetObject"),
        (400, "<Code>KMS.DisabledException</Code>", None, ACCESS, "grant the role kms:Decrypt"),
        (403, "<Code>InvalidObjectState</Code>", None, ACCESS, "it is archived"),
        (400, "<Code>InvalidRequest</Code>", None, errors.StoreError, "s3://bucket/models/key (InvalidRequest)"),
        (400, "<Code>RequestTimeout</Code>", None, errors.StoreUnavailableError, "(RequestTimeout), retries included"),
        (400, "<Code>KMS.ThrottlingException</Code>", None, errors.StoreUnavailableError, "(KMS.ThrottlingException)"),
        (503, "<Code>SlowDown</Code>", None, errors.StoreUnavailableError, "(SlowDown), retries included"),
    ],
)  # fmt: skip
def test_a_refusal_of_s3_says_what_to_do(aws_with_one_retry, status, document, region, kind, message):
    """S3's own error documents become errors that name the cause and the remedy; none is a missing object."""
    headers = {"x-amz-bucket-region": region} if region else {}
    with refusing_s3(status, f"<Error>{document}</Error>".encode(), headers) as endpoint:
        aws_with_one_retry.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(kind, match=re.escape(message)) as caught:
            open_store("s3://bucket/models").fetch("key", 10)
    assert type(caught.value) is kind
    assert endpoint not in str(caught.value)


def test_a_passing_outage_is_retried(aws, monkeypatch, folder):
    """One 503 costs a retry, not the model."""
    seen = []

    def once(key):
        seen.append(key)
        return 503 if len(seen) == 1 else None

    with faulty_s3(objects_of(folder), once) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        assert fetch_artifact(open_store("s3://bucket"), "tiny_int8").manifest.version == 1


@pytest.mark.parametrize(
    ("version", "keys"),
    [
        ("1", {"tiny_int8/1/manifest.json", "tiny_int8/1/model.tflite"}),
        ("latest", {"tiny_int8/aliases.json", "tiny_int8/1/manifest.json", "tiny_int8/1/model.tflite"}),
    ],
)
def test_round_trips(aws, monkeypatch, folder, version, keys):
    """Each object is asked for once: one round trip for a number, two through an alias."""
    with faulty_s3(objects_of(folder), lambda _: None) as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        fetch_artifact(open_store("s3://bucket"), "tiny_int8", version)
    assert sorted(asked) == sorted(keys)


def test_a_damaged_artifact_is_never_served(folder):
    """One changed byte, or one missing, is a digest error."""
    path = folder / "tiny_int8/1/model.tflite"
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    with pytest.raises(errors.DigestError, match="has SHA-256"):
        fetch_artifact(open_store(folder.as_uri()), "tiny_int8")
    path.write_bytes(data[:-1])
    with pytest.raises(errors.DigestError, match="bytes, the manifest pins"):
        fetch_artifact(open_store(folder.as_uri()), "tiny_int8")


def test_a_manifest_with_another_digest_is_never_served(folder):
    """Neither the environment's pin nor the alias' can be got round by changing the manifest."""
    files = open_store(folder.as_uri())
    with pytest.raises(errors.DigestError, match="pinned was"):
        fetch_artifact(files, "tiny_int8", "1", "0" * 64)
    path = folder / "tiny_int8/1/manifest.json"
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(errors.DigestError, match="pinned was"):
        fetch_artifact(files, "tiny_int8")


def test_a_manifest_of_another_version_is_refused(folder):
    """A whole version copied over another is noticed."""
    shutil.copytree(folder / "tiny_int8/1", folder / "tiny_int8/2")
    with pytest.raises(errors.ArtifactError, match="not of tiny_int8 version 2"):
        fetch_artifact(open_store(folder.as_uri()), "tiny_int8", "2")


def test_the_manifest_may_name_another_artifact(tmp_path):
    """The name of the artifact is the manifest's to say; the usual one is only tried first."""
    data = golden("tiny_int8")
    publish(tmp_path, "tiny_int8")
    version = tmp_path / "tiny_int8" / "1"
    entry = {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}
    (version / "manifest.json").write_text(
        json.dumps(make_manifest("tiny_int8", 1, data, artifact="other.tflite", files={"other.tflite": entry}))
    )
    (version / "model.tflite").rename(version / "other.tflite")
    assert bytes(fetch_artifact(open_store(tmp_path.as_uri()), "tiny_int8", "1").model) == data


@pytest.mark.parametrize("version", ["2", "nope"])
def test_a_missing_version_or_alias(folder, version):
    """Both are the client's to mend."""
    with pytest.raises(errors.ModelNotFoundError):
        fetch_artifact(open_store(folder.as_uri()), "tiny_int8", version)


PINS = {number: {"manifest_sha256": "0" * 64, "artifact": "model.tflite"} for number in ("1", "2")}


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b'{"versions": 3}',
        b'{"versions": {"x": {}}}',
        b'{"versions": {"1": {}}}',
        *(
            json.dumps({"latest": 1, "versions": PINS, **fields}).encode()
            for fields in (
                {"latest": "1"},
                {"latest": 1.0},
                {"latest": True},
                {"latest": 0},
                {"latest": float("inf")},
                {"versions": {"1": {"manifest_sha256": 1, "artifact": "model.tflite"}}},
                {"versions": {"1": {"manifest_sha256": "0" * 64, "artifact": None}}},
                {"canary": float("inf")},
                {"canary": {"latest": 2}},
                {"canary": {"latest": {"2": float("inf")}}},
                {"canary": {"latest": {"2": float("nan")}}},
                {"canary": {"latest": {"2": -1}}},
                {"canary": {"latest": {"2": 101}}},
                {"canary": {"latest": {"2": "10"}}},
                {"canary": {"latest": {"2": True}}},
                {"canary": {"latest": {"two": 10}}},
                {"shadow": float("inf")},
                {"shadow": {"latest": float("inf")}},
                {"shadow": {"latest": "2"}},
            )
        ),
    ],
)
def test_a_damaged_aliases_document(data):
    """Whatever is wrong with it, it is an ArtifactError, as soon as it is read."""
    with pytest.raises(errors.ArtifactError, match="is not an aliases document"):
        Aliases.from_json(data)


def test_fields_of_later_writers_are_no_aliases():
    """What holds more than one value is ignored, as in a manifest."""
    aliases = Aliases.from_json(json.dumps({"latest": 1, "versions": PINS, "tomorrow": {"latest": "x"}}).encode())
    assert aliases.targets == {"latest": 1}


def test_background_hands_on_values_and_errors():
    """What a call returns or raises in its thread reaches whoever asks, as often as they ask."""
    assert Background(max, 1, 2).result() == 2
    failing = Background(int, "x")
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            failing.result()


@pytest.mark.parametrize("size", [s3_store._PART_BYTES - 1, s3_store._PART_BYTES, 3 * s3_store._PART_BYTES + 17])
def test_large_objects_come_in_parallel_ranges(aws, monkeypatch, size):
    """Whatever its size, an object arrives whole, with its digest, in as many requests as it has ranges."""
    body = random.Random(size).randbytes(size)
    with faulty_s3({"big": body}, lambda _: None) as (endpoint, asked):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        data, digest = open_store("s3://bucket").fetch_digested("big", 10**9)
    assert bytes(data) == body
    assert digest == hashlib.sha256(body).hexdigest()
    assert len(asked) == -(-size // s3_store._PART_BYTES)


def test_a_large_object_cut_short_is_an_error(aws, quick_retries, monkeypatch):
    """A range that fails fails the object: nothing half-filled is handed on."""
    body = bytes(3 * s3_store._PART_BYTES)
    asked = []

    def third(key):
        asked.append(key)
        return 500 if len(asked) >= 3 else None

    with faulty_s3({"big": body}, third) as (endpoint, _):
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
        with pytest.raises(errors.StoreUnavailableError):
            open_store("s3://bucket").fetch_digested("big", 10**9)


def test_only_amazons_roots_are_trusted_for_amazons_endpoints(aws, monkeypatch):
    """The small trust store is used for S3 itself, and left aside where someone chose roots or another endpoint."""
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.delenv("SSL_CERT_DIR", raising=False)

    def chosen(endpoint):
        with s3_store._Trust(endpoint):
            return os.environ.get("SSL_CERT_FILE")

    assert chosen("") == s3_store._TRUST
    assert chosen("http://127.0.0.1:1") == s3_store._TRUST
    assert chosen("https://s3.example.org") is None
    assert "SSL_CERT_FILE" not in os.environ
    monkeypatch.setenv("AWS_REGION", "cn-north-1")
    assert chosen("") is None
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("SSL_CERT_FILE", "/own.pem")
    assert chosen("") == "/own.pem"


def test_the_trusted_roots_are_amazons_and_well_known():
    """Each shipped certificate is in Mozilla's list too, under the name of Amazon Trust Services."""
    roots = re.findall("-----BEGIN.*?END CERTIFICATE-----", Path(s3_store._TRUST).read_text(), re.DOTALL)
    assert len(roots) == 5
    mozilla = Path(certifi.where()).read_text()
    for root in roots:
        comment = mozilla[: mozilla.index(root)].rpartition("# Issuer:")[2].partition("\n")[0]
        assert "O=Amazon" in comment or "Starfield Services Root Certificate Authority - G2" in comment


def test_an_obstore_of_another_architecture(tmp_path):
    """A package that was made for other machines says so, and what to do, instead of a bare ImportError."""
    (tmp_path / "obstore").mkdir()
    other = 62 if platform.machine() == "aarch64" else 183  # e_machine: x86-64, AArch64
    header = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHI", 3, other, 1)
    (tmp_path / "obstore" / "_obstore.abi3.so").write_bytes(header.ljust(4096, b"\0"))
    code = (
        f"import sys; sys.path.insert(0, {str(FUNCTIONS)!r}); sys.path.insert(0, {str(tmp_path)!r})\n"
        "from litelambda_serving.errors import RuntimeLibraryError\nfrom litelambda_serving.store import open_store\n"
        "try: open_store('s3://bucket/prefix')\nexcept RuntimeLibraryError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert f"is not obstore for this machine ({platform.machine()})" in done.stdout
    assert "Package for the function's architecture" in done.stdout


def test_obstore_itself_still_imports_beside_its_native_module(aws):
    """The extension alone and the whole package live in one process."""
    script = (
        "from litelambda_serving.s3_store import load_native; native = load_native(); "
        "import obstore, obstore.store; print(obstore.store.S3Store('b') is not None and native is load_native())"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script]
    output = subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout
    assert output.strip() == "True"


@pytest.mark.parametrize("size", [0, 1, 5_000_000])
def test_digests_are_hashlibs(size):
    """Small inputs and large ones have the same digest as everywhere."""
    data = random.Random(size).randbytes(size)
    assert hexdigest(data) == hashlib.sha256(data).hexdigest()
