"""The publishing side of a store: the same promises on a folder, on S3, and in other clouds."""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import botocore.client
import pytest
from botocore.exceptions import ClientError

from litelambda.common.errors import PublishError, UsageError
from litelambda.store.artifact_store import Store
from litelambda.store.catalogue import age, describe_models, list_models
from litelambda.store.prune import plan_prune, prune
from litelambda.store.version_files import VersionFiles
from litelambda_serving import objects
from litelambda_serving.errors import (
    ModelNotFoundError,
    ObjectNotFoundError,
    SettingsError,
    StoreAccessError,
    StoreError,
    StoreUnavailableError,
)
from litelambda_serving.objects import objects_for
from litelambda_serving.objects.files import FileObjects
from litelambda_serving.store import open_store
from support import golden_store
from support.fake_clouds import BUCKET, environment_of, fake_cloud, prepare_azurite
from support.faulty_aws import CONFLICT, LOST_ANSWER, SLOW_DOWN, Fault, FaultyAws
from support.mocked_aws import mock_aws
from support.moto_server import MotoServer

FORBIDDEN = Fault(403, "AccessDenied")
FILES: dict[str, bytes | Path] = {"model.tflite": b"flatbuffer", "report.json": b"{}"}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An empty bucket named "models" in a mocked AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.setenv(name, "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    # S3 decides a conditional write atomically; moto looks first and writes then, so its requests come one by one.
    one_by_one, call = threading.Lock(), botocore.client.BaseClient._make_api_call

    def call_alone(client: Any, operation: str, parameters: Any) -> Any:
        with one_by_one:
            return call(client, operation, parameters)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call_alone)
    monkeypatch.setattr(objects, "_s3", None)
    with mock_aws():
        client = boto3.client("s3")
        client.create_bucket(Bucket="models")
        yield client


@contextmanager
def cloud(scheme: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty store in a fake of another cloud, or in Azurite where `make test-stores` runs it."""
    monkeypatch.setattr(objects, "_clouds", None)
    azurite = os.environ.get("LITELAMBDA_TEST_AZURITE") if scheme == "az" else None
    if azurite:
        prepare_azurite(azurite)
    with nullcontext((azurite, None)) if azurite else fake_cloud(scheme) as (endpoint, _):
        for name, value in environment_of(scheme, endpoint).items():
            monkeypatch.setenv(name, value)
        yield f"{scheme}://{BUCKET}/{secrets.token_hex(8)}"


@pytest.fixture(params=["file", "s3", "s3 without prefix", "gs", "az"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """An empty store of each kind."""
    if request.param == "file":
        yield Store((tmp_path / "store").as_uri())
    elif request.param in ("gs", "az"):
        with cloud(request.param, monkeypatch) as url:
            yield Store(url)
    else:
        request.getfixturevalue("bucket")
        yield Store("s3://models/team/a" if request.param == "s3" else "s3://models")


def manifest_of(version: int, note: str = "") -> bytes:
    """As much of a manifest as the store looks at."""
    fields = {"artifact": "model.tflite", "version": version, "created": "2026-11-23T12:00:00Z", "note": note}
    return json.dumps({**fields, "metrics": {"quantized": {"accuracy": 0.9}}}).encode()


def publish(store: Store, *versions: int, model: str = "digits") -> None:
    """Publish these versions of a model."""
    for version in versions:
        store.publish(model, version, FILES, manifest_of(version))


def test_an_empty_store_has_nothing(store: Store) -> None:
    """A store that nobody has written to can be listed, and the first version is 1."""
    assert store.list_models() == []
    assert store.list_versions("digits") == []
    assert store.read_aliases("digits") == {}
    assert store.next_version("digits") == 1


def test_what_is_published_can_be_read(store: Store) -> None:
    """Manifest and files come back byte by byte, versions in numeric order."""
    publish(store, 1, 2, 10)
    publish(store, 1, model="letters")
    assert store.list_models() == ["digits", "letters"]
    assert store.list_versions("digits") == [1, 2, 10]
    assert store.next_version("digits") == 11
    assert store.read_manifest("digits", 2) == manifest_of(2)
    assert store.read_file("digits", 2, "model.tflite") == b"flatbuffer"


def test_a_folder_with_a_space_is_the_same_for_writer_and_reader(tmp_path: Path) -> None:
    """A file URL escapes what a path may hold; both sides of a store undo that."""
    store = Store((tmp_path / "my models").as_uri())
    publish(store, 1)
    assert (tmp_path / "my models" / "digits" / "1" / "manifest.json").is_file()
    assert bytes(open_store(store.url).fetch("digits/1/model.tflite", 100)) == b"flatbuffer"


def test_files_may_come_from_disk(store: Store, tmp_path: Path) -> None:
    """Large files are published from a path, without reading them into memory."""
    large = tmp_path / "large.bin"
    large.write_bytes(bytes(3_000_000))
    store.publish("digits", 1, {"model.tflite": large}, manifest_of(1))
    assert store.read_file("digits", 1, "model.tflite") == bytes(3_000_000)


def test_a_version_is_immutable(store: Store) -> None:
    """A second publisher of the same number is refused and changes nothing."""
    publish(store, 1)
    with pytest.raises(PublishError, match=r"version 1 of digits was taken by another publisher"):
        store.publish("digits", 1, {"model.tflite": b"other"}, manifest_of(1, "other"))
    assert store.read_file("digits", 1, "model.tflite") == b"flatbuffer"
    assert store.read_manifest("digits", 1) == manifest_of(1)


def test_a_half_published_version_is_invisible_and_its_number_burnt(store: Store) -> None:
    """Files without a manifest are no version; the next publisher takes the next number."""
    publish(store, 1)
    objects_for(store.url).put(f"{store.url}/digits/2/model.tflite", b"flatb", tag="")
    assert store.list_versions("digits") == [1]
    assert store.next_version("digits") == 3
    with pytest.raises(PublishError, match=r"has no version 2 .*; it has 1"):
        store.set_alias("digits", "latest", 2)


def race(work: Callable[[int], None], num_threads: int = 8) -> list[BaseException]:
    """Run `work` in threads that start together; return what they raised."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(num_threads)

    def run(index: int) -> None:
        barrier.wait()
        try:
            work(index)
        except PublishError as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return errors


def test_of_racing_publishers_one_wins(store: Store) -> None:
    """All publish version 1 at once: one succeeds whole, the others lose with a clear error."""
    stores = [Store(store.url) for _ in range(8)]
    store.list_models()  # makes the client: boto3's default session is not thread-safe

    def work(index: int) -> None:
        files: dict[str, bytes | Path] = {"model.tflite": f"publisher {index}".encode()}
        stores[index].publish("digits", 1, files, manifest_of(1, f"publisher {index}"))

    errors = race(work)
    assert len(errors) == 7
    assert all("was taken by another publisher" in str(error) for error in errors)
    winner = store.read_file("digits", 1, "model.tflite").decode()
    assert json.loads(store.read_manifest("digits", 1))["note"] == winner


def test_racing_aliases_all_arrive(store: Store) -> None:
    """Writers of different aliases of one model do not undo each other."""
    publish(store, 1, 2)

    def work(index: int) -> None:
        store.set_alias("digits", f"stage-{index}", 1 + index % 2)

    assert race(work, 6) == []
    assert store.read_aliases("digits") == {f"stage-{index}": 1 + index % 2 for index in range(6)}


def test_an_alias_moves_forward_and_back(store: Store) -> None:
    """A person may roll an alias back; a publisher only ever moves it forward."""
    publish(store, 1, 2, 3)
    store.advance_alias("digits", "latest", 2)
    store.advance_alias("digits", "latest", 1)
    assert store.read_aliases("digits") == {"latest": 2}
    store.set_alias("digits", "latest", 1)
    store.set_alias("digits", "stable", 1)
    store.advance_alias("digits", "latest", 3)
    assert store.read_aliases("digits") == {"latest": 3, "stable": 1}


def test_aliases_carry_what_a_side_by_side_fetch_needs(store: Store) -> None:
    """The document pins each version that something points at, and keeps what it does not know."""
    publish(store, 1, 2, 3)
    store.set_alias("digits", "latest", 1)
    url = f"{store.url}/digits/aliases.json"
    content, tag = objects_for(url).get(url) or (b"", "")
    more = {**json.loads(content), "canary": {"latest": {"1": 10}}}
    assert objects_for(url).put(url, json.dumps(more).encode(), tag=tag)
    store.advance_alias("digits", "latest", 2)
    store.advance_alias("digits", "latest", 3)
    document = json.loads((objects_for(url).get(url) or (b"", ""))[0])
    assert document["canary"] == {"latest": {"1": 10}}
    assert document["versions"] == {
        number: {
            "manifest_sha256": hashlib.sha256(manifest_of(int(number))).hexdigest(),
            "artifact": "model.tflite",
        }
        for number in ("1", "3")
    }


@pytest.mark.parametrize("alias", ["7", "versions", "canary", "a/b", "", ".hidden"])
def test_names_that_cannot_be_aliases_are_refused(tmp_path: Path, alias: str) -> None:
    """Numbers are versions, some words are reserved, and a name never leaves its folder."""
    store = Store(tmp_path.as_uri())
    publish(store, 1)
    with pytest.raises(PublishError, match="invalid alias"):
        store.set_alias("digits", alias, 1)


def test_replace_needs_the_tag_that_was_read(store: Store) -> None:
    """A write is refused when another one came in between, and when the object appeared or vanished."""
    place, url = objects_for(store.url), f"{store.url}/a/doc"
    assert place.put(url, b"1", tag="")
    assert not place.put(url, b"2", tag="")
    _, tag = place.get(url) or (b"", "")
    assert place.put(url, b"2", tag=tag)
    assert not place.put(url, b"3", tag=tag)
    assert (place.get(url) or (b"", ""))[0] == b"2"
    assert place.get(f"{store.url}/a/none") is None
    assert not place.put(f"{store.url}/a/none", b"1", tag=tag)
    with pytest.raises(ObjectNotFoundError, match=r"digits/1/none does not exist"):
        store.read_file("digits", 1, "none")


def test_an_alias_that_never_gets_through_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Endless conflicts end in a clear error, not in an endless loop."""
    store = Store(tmp_path.as_uri())
    publish(store, 1)

    put = FileObjects.put
    monkeypatch.setattr(FileObjects, "put", lambda *args, **more: "aliases" not in args[1] and put(*args, **more))
    monkeypatch.setattr("litelambda.store.artifact_store._PAUSE_S", 0)
    with pytest.raises(PublishError, match="latest was not moved"):
        store.set_alias("digits", "latest", 1)


def test_a_killed_file_write_leaves_nothing_readable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write that stops before its last step leaves neither object nor leftovers that a reader would see."""
    url = f"{tmp_path.as_uri()}/digits/1/model.tflite"

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.link", killed)
    with pytest.raises(KeyboardInterrupt):
        objects_for(url).put(url, b"x", tag="")
    assert list((tmp_path / "digits" / "1").iterdir()) == []


def test_what_a_killed_publisher_left_is_removed_by_the_next(tmp_path: Path) -> None:
    """A half-written copy has no writer any more: it goes when the same file is written."""
    code = (
        "import os, sys, signal; from litelambda_serving.objects import files\n"
        "def content(_):\n    yield b'half'\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "files.chunks_of = content\n"
        "files.FileObjects().put(sys.argv[1], b'', tag='')"
    )
    url = f"{tmp_path.as_uri()}/digits/1/model.tflite"
    subprocess.run([sys.executable, "-c", code, url], check=False, timeout=60)
    folder = tmp_path / "digits" / "1"
    assert [path.suffix for path in folder.iterdir()] == [".part"]
    assert objects_for(url).put(url, b"whole", tag="")
    assert [path.name for path in folder.iterdir()] == ["model.tflite"]


def test_a_folder_without_rights_is_an_access_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing rights are said with the object's place."""

    def refused(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("litelambda_serving.objects.file_upload._create_part", refused)
    with pytest.raises(StoreAccessError, match=r"no right to write .*/audit/.*nothing was changed"):
        publish(Store(tmp_path.as_uri()), 1)


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("AccessDenied", 403, StoreAccessError),
        ("SlowDown", 503, StoreUnavailableError),
        ("NoSuchBucket", 404, StoreError),
        ("InvalidRequest", 400, StoreError),
    ],
)
def test_answers_of_s3_become_clear_errors(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, code: str, status: int, error: type[StoreError]
) -> None:
    """What S3 refuses is told apart: rights, trouble that may pass, and the rest."""
    answer: Any = {"Error": {"Code": code, "Message": ""}, "ResponseMetadata": {"HTTPStatusCode": status}}

    def refuse(*_: object, **__: object) -> None:
        raise ClientError(answer, "PutObject")

    monkeypatch.setattr("botocore.client.BaseClient._make_api_call", refuse)
    with pytest.raises(error, match=r"s3://models/audit/.*nothing was changed"):
        publish(Store("s3://models"), 1)


@pytest.fixture
def bad_wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyAws]:
    """An AWS with an empty bucket "models", whose wire breaks as asked."""
    with MotoServer() as moto:
        aws = FaultyAws()
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(name, "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", aws.url)
        monkeypatch.setattr("litelambda_serving.objects.s3_requests._CONFLICT_PAUSE_S", 0)
        monkeypatch.setattr(objects, "_s3", None)
        boto3.client("s3", endpoint_url=moto.url).create_bucket(Bucket="models")
        yield aws
        aws.close()


@pytest.mark.parametrize("fault", [LOST_ANSWER, CONFLICT, SLOW_DOWN])
@pytest.mark.parametrize("name", ["digits/1/model.tflite", "digits/1/manifest.json", "digits/aliases.json"])
def test_no_number_is_lost_on_a_bad_wire(bad_wire: FaultyAws, tmp_path: Path, fault: Fault, name: str) -> None:
    """An answer that is lost, or a conflict that decides nothing, burns no version and moves no alias twice."""
    faults = iter([fault])
    bad_wire.fault = lambda operation, path: (
        next(faults, None) if (operation, path) == ("PutObject", f"models/{name}") else None
    )
    (tmp_path / "model").write_bytes(b"flatbuffer" * 100_000)
    store = Store("s3://models")
    store.publish("digits", 1, {"model.tflite": tmp_path / "model"}, manifest_of(1))
    store.advance_alias("digits", "latest", 1)
    assert next(faults, None) is None
    assert store.list_versions("digits") == [1]
    assert store.read_aliases("digits") == {"latest": 1}
    assert store.read_file("digits", 1, "model.tflite") == b"flatbuffer" * 100_000


def test_a_lost_answer_is_no_license_to_take_anothers_number(bad_wire: FaultyAws) -> None:
    """A number that is another publisher's stays so, even where this one's first try was answered with a 500."""
    publish(Store("s3://models"), 1)
    faults = iter([SLOW_DOWN])
    bad_wire.fault = lambda operation, path: next(faults, None) if operation == "PutObject" else None
    with pytest.raises(PublishError, match="was taken by another publisher"):
        Store("s3://models").publish("digits", 1, {"model.tflite": b"other"}, manifest_of(1, "other"))
    assert Store("s3://models").read_file("digits", 1, "model.tflite") == b"flatbuffer"


def test_conflicts_that_never_end_are_told_as_such(bad_wire: FaultyAws) -> None:
    """Where S3 decides nothing again and again, it is asked to be tried later: no number is said to be taken."""
    bad_wire.fault = lambda operation, path: CONFLICT if operation == "PutObject" else None
    with pytest.raises(StoreUnavailableError, match="other writes kept S3 from deciding"):
        publish(Store("s3://models"), 1)


def test_old_versions_can_be_pruned(store: Store) -> None:
    """Wherever the store is, its old versions go whole, and those that are named or new stay."""
    publish(store, 1, 2, 3, 4)
    store.set_alias("digits", "stable", 2)
    plan = plan_prune(store, "digits", keep=1)
    prune(store, plan)
    assert plan.num_bytes == 2 * sum(map(len, (b"flatbuffer", b"{}", manifest_of(1))))
    assert {version for version, _, _ in VersionFiles(store, "digits").list()} == {2, 4}
    assert (store.list_versions("digits"), store.next_version("digits")) == ([2, 4], 5)


def test_a_bucket_that_forbids_deletion(bad_wire: FaultyAws) -> None:
    """S3's 403, as the stack's bucket policy answers, leaves the version whole and names the setting."""
    store = Store("s3://models")
    publish(store, 1, 2)
    bad_wire.fault = lambda operation, _path: FORBIDDEN if operation == "DeleteObject" else None
    with pytest.raises(StoreAccessError, match=r"version 1 of digits stays as it was.*ImmutableVersions=on"):
        prune(store, plan_prune(store, "digits", keep=1))
    assert store.read_file("digits", 1, "model.tflite") == b"flatbuffer"


def test_a_missing_bucket_and_missing_credentials_are_named(
    bucket: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A bucket that does not exist, and no credentials at all, are said as such."""
    with pytest.raises(StoreError, match=r"the bucket of s3://elsewhere/.* does not exist"):
        publish(Store("s3://elsewhere"), 1)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setattr(objects, "_s3", None)
    with pytest.raises(StoreAccessError, match="no AWS credentials were found"):
        publish(Store("s3://models"), 1)


def test_other_urls_are_refused() -> None:
    """What is not a store is refused with the forms that are."""
    with pytest.raises(SettingsError, match="expected file:///path, s3://bucket/prefix, gs://bucket/prefix or az://"):
        Store("ftp://example.com/models")


def test_the_catalogue_lists_models_versions_and_aliases(store: Store) -> None:
    """`litelambda models` shows every version with its digest, metrics and aliases."""
    assert describe_models(list_models(store.url), store.url) == f"no models in {store.url}"
    publish(store, 1, 2)
    store.set_alias("digits", "latest", 2)
    (model,) = list_models(store.url)
    assert model["model"] == "digits"
    assert model["aliases"] == {"latest": 2}
    assert model["versions"][1] == {
        "version": 2,
        "digest": hashlib.sha256(manifest_of(2)).hexdigest(),
        "created": "2026-11-23T12:00:00Z",
        "metrics": {"quantized": {"accuracy": 0.9}},
        "size_bytes": {},
    }
    model["versions"][1]["size_bytes"] = {"stored": 12345}
    table = describe_models([model], store.url).splitlines()
    digest = hashlib.sha256(manifest_of(2)).hexdigest()[:12]
    days = age("2026-11-23T12:00:00Z", datetime.now(UTC)).split()
    last = ["latest", "accuracy", "0.9", "12,345", digest]
    assert table[1].split() == ["digits", "2", "2026-11-23T12:00:00Z", *days, *last]


@pytest.mark.parametrize(
    ("created", "text"),
    [
        ("2026-01-04T23:30:00Z", "30 min"),
        ("2026-01-04T22:00:00Z", "2 h"),
        ("2025-01-05T00:00:00Z", "365 d"),
        ("2027-01-05T00:00:00Z", "0 min"),
        ("yesterday", ""),
        ("", ""),
    ],
)
def test_an_age_is_told_in_its_largest_unit(created: str, text: str) -> None:
    """Minutes, hours or days; nothing where a manifest has no time."""
    assert age(created, datetime(2026, 1, 5, tzinfo=UTC)) == text


def test_a_version_is_fetched_by_what_it_is_called(tmp_path: Path) -> None:
    """By name, alias or number: the artifact's bytes and its manifest; what is not there is told with what is."""
    golden_store.publish(tmp_path, "tiny_int8")
    store = Store(tmp_path)
    for reference in ("tiny_int8", "tiny_int8@latest", "tiny_int8:1"):
        fetched = store.fetch(reference)
        assert (fetched.model, fetched.version, fetched.artifact) == ("tiny_int8", 1, golden_store.golden("tiny_int8"))
        assert fetched.manifest["model"] == "tiny_int8"
    with pytest.raises(UsageError, match=r"'tiny_int8' has no alias 'best' in .*; it has 1, aliases: latest \(1\)"):
        store.fetch("tiny_int8@best")
    with pytest.raises(ModelNotFoundError, match=r"; it has 1, aliases: latest \(1\)"):
        store.fetch("tiny_int8:7")
    with pytest.raises(UsageError, match="expected NAME, NAME@alias or NAME:version"):
        store.fetch("tiny int8")
