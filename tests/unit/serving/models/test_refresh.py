"""Conditional reads and listings, on folders and on S3: what lets a running function follow its store."""

from __future__ import annotations

import json
from pathlib import Path

import boto3
import pytest

from litelambda_serving.aliases import fetch_aliases, refetch_aliases
from litelambda_serving.digest import hexdigest
from litelambda_serving.errors import ModelNotFoundError, ObjectNotFoundError
from litelambda_serving.models import ModelRepository
from litelambda_serving.store import open_store
from support.golden_store import golden, publish, set_aliases
from support.moto_server import MotoServer
from support.waiting import wait_until


class Place:
    """A store that tests write to.

    Attributes:
        url: its URL.
        server: moto's, None for a folder.
    """

    def __init__(self, folder, url, server=None):
        self._folder = folder
        self.url = url
        self.server = server

    def write(self, key, data):
        """Replace an object whole, as publishers do."""
        if self.server is not None:
            boto3.client("s3").put_object(Bucket="bucket", Key=f"models/{key}", Body=data)
            return
        path = self._folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".new")
        temporary.write_bytes(data)
        temporary.replace(path)


@pytest.fixture(params=["file", "s3"])
def place(request, tmp_path, monkeypatch):
    if request.param == "file":
        yield Place(tmp_path / "store", (tmp_path / "store").as_uri())
        return
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.setenv(name, "eu-west-1")
    with MotoServer() as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", server.url)
        boto3.client("s3").create_bucket(Bucket="bucket", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
        yield Place(None, "s3://bucket/models", server)


def test_an_object_is_read_again_only_when_it_changed(place):
    """Its tag makes the next read an empty one, until someone replaces it."""
    store = open_store(place.url)
    place.write("m/aliases.json", b"one")
    data, tag = store.fetch_changed("m/aliases.json", 100, "")
    assert bytes(data) == b"one"
    assert store.fetch_changed("m/aliases.json", 100, tag) is None
    place.write("m/aliases.json", b"two")
    data, new_tag = store.fetch_changed("m/aliases.json", 100, tag)
    assert (bytes(data), new_tag != tag) == (b"two", True)
    with pytest.raises(ObjectNotFoundError):
        store.fetch_changed("n/aliases.json", 100, tag)


def test_the_folders_at_the_top(place):
    """Listed once each, sorted; what lies deeper or beside them is not."""
    store = open_store(place.url)
    assert store.list_folders() == []
    for key in ("b/aliases.json", "a/1/manifest.json", "a/2/manifest.json", "file.txt"):
        place.write(key, b"x")
    assert store.list_folders() == ["a", "b"]


def test_aliases_are_fetched_once_and_then_followed(place):
    """Unchanged aliases cost no body; a model that is not there is the client's mistake."""
    store = open_store(place.url)
    pin = {"manifest_sha256": "0" * 64, "artifact": "model.tflite"}
    place.write("m/aliases.json", json.dumps({"latest": 1, "versions": {"1": pin}}).encode())
    aliases = fetch_aliases(store, "m")
    assert refetch_aliases(store, "m", aliases.tag) is None
    document = {"latest": 2, "canary": {"latest": {"3": 5}}, "versions": {"2": pin, "3": pin}}
    place.write("m/aliases.json", json.dumps(document).encode())
    newer = refetch_aliases(store, "m", aliases.tag)
    assert (newer.targets, newer.reachable("latest")) == ({"latest": 2}, {2, 3})
    with pytest.raises(ModelNotFoundError):
        fetch_aliases(store, "n")


def test_a_repository_follows_its_store_and_outlives_it(place, tmp_path, monkeypatch):
    """Moved aliases are followed in the background; when the store is gone, what is loaded serves on."""
    monkeypatch.setattr("litelambda_serving.s3_store._RETRIES", 0)
    source = tmp_path / "source"
    for version in (1, 2):
        publish(source, "m", version, golden("half_plus_two"))
    for path in source.rglob("*.*"):
        place.write(path.relative_to(source).as_posix(), path.read_bytes())
    warnings: list[str] = []
    repository = ModelRepository(open_store(place.url), 1, refresh_seconds=0, warn=warnings.append)
    assert repository.get("m").manifest.version == 2
    set_aliases(source, {"latest": 1})
    place.write("m/aliases.json", (source / "m/aliases.json").read_bytes())
    wait_until(lambda: repository.get("m").manifest.version == 1)
    if place.server is not None:
        place.server.stop()
    else:
        (Path(tmp_path) / "store").rename(tmp_path / "gone")
    wait_until(lambda: repository.get("m").manifest.version == 1 and warnings)
    assert "the old ones remain in use" in warnings[0]


def test_a_version_is_asked_for_by_its_artifacts_own_name(tmp_path):
    """Found through an alias, an artifact of another name costs no extra round trip, loaded at once or on a refresh."""
    for version in (1, 2):
        publish(tmp_path, "m", version, golden("half_plus_two"))
        folder = tmp_path / f"m/{version}"
        (folder / "model.tflite").rename(folder / "other.tflite")
        manifest = (folder / "manifest.json").read_text().replace("model.tflite", "other.tflite")
        (folder / "manifest.json").write_text(manifest)
    digests = {number: hexdigest((tmp_path / f"m/{number}/manifest.json").read_bytes()) for number in (1, 2)}
    pins = {str(number): {"manifest_sha256": digests[number], "artifact": "other.tflite"} for number in (1, 2)}
    aliases = tmp_path / "m/aliases.json"
    aliases.write_text(json.dumps({"latest": 1, "versions": pins}))
    store = open_store(tmp_path.as_uri())
    asked: list[str] = []
    for name in ("fetch", "fetch_digested"):
        fetch = getattr(store, name)
        setattr(store, name, lambda key, *more, fetch=fetch: (asked.append(key), fetch(key, *more))[1])
    repository = ModelRepository(store, 1, refresh_seconds=0)
    assert repository.get("m").manifest.version == 1
    (tmp_path / "m/aliases.new").write_text(json.dumps({"latest": 2, "versions": pins}))
    (tmp_path / "m/aliases.new").replace(aliases)
    wait_until(lambda: repository.get("m").manifest.version == 2)
    assert {"m/1/other.tflite", "m/2/other.tflite"} < set(asked)
    assert not [key for key in asked if key.endswith("/model.tflite")]
