"""Stores in Google Cloud Storage and Azure Blob Storage, from fakes of them: what is read, and what goes wrong."""

from __future__ import annotations

import hashlib
import json
import random
from typing import TYPE_CHECKING, Any

import pytest

from litelambda_serving import objects, s3_store
from litelambda_serving.artifact import fetch_artifact
from litelambda_serving.errors import (
    ObjectNotFoundError,
    SettingsError,
    StoreAccessError,
    StoreError,
    StoreLocationError,
    StoreUnavailableError,
)
from litelambda_serving.objects import clouds, objects_for
from litelambda_serving.objects.errors import ObjectReplacedError
from litelambda_serving.store import open_store, split_store_url
from support.fake_clouds import ACCOUNT, BUCKET, LOST_ANSWER, environment_of, fake_cloud
from support.golden_store import golden, publish

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VARIABLES = (
    *("GOOGLE_APPLICATION_CREDENTIALS", "GOOGLE_SERVICE_ACCOUNT", "GOOGLE_BEARER_TOKEN", "GOOGLE_BASE_URL"),
    *("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT"),
)


class Fake:
    """A cloud, and the URL of a store in it."""

    def __init__(self, scheme: str, cloud: Any) -> None:
        self.cloud = cloud
        self.url = f"{scheme}://{BUCKET}/models"

    def add(self, key: str, data: bytes) -> None:
        self.cloud.store(f"models/{key}", data)


@pytest.fixture(params=["gs", "az"])
def fake(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Fake]:
    """Either cloud, with an empty store; a failing request is sent once more, not as often as a function may."""
    monkeypatch.setattr(s3_store, "_RETRIES", 1)
    monkeypatch.setattr(clouds, "_PAUSE_S", 0.001)
    monkeypatch.setattr(objects, "_clouds", None)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with fake_cloud(request.param) as (endpoint, cloud):
        for name, value in environment_of(request.param, endpoint).items():
            monkeypatch.setenv(name, value)
        yield Fake(request.param, cloud)


@pytest.mark.parametrize(
    ("url", "parts"),
    [
        ("gs://bucket/models/", ("gs", "bucket", "models")),
        ("gs://bucket", ("gs", "bucket", "")),
        ("az://container/models", ("az", "container", "models")),
        ("az://container@account", ("az", "container@account", "")),
        ("az://container@account.blob.core.windows.net/a/b", ("az", "container@account", "a/b")),
        ("abfss://container@account.dfs.core.windows.net/a", ("az", "container@account", "a")),
        ("https://account.blob.core.windows.net/container/a", ("az", "container@account", "a")),
    ],
)
def test_store_urls(url: str, parts: tuple[str, str, str]) -> None:
    """Each form of a URL that these clouds' own tools print is taken."""
    assert split_store_url(url) == parts


@pytest.mark.parametrize(
    "url",
    [
        "gs://",
        "az://",
        "az://@account/x",
        "az://c@account.blob.core.chinacloudapi.cn/x",
        "https://example.com/c/models",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """Whoever names another endpoint, or no container, is told the forms that are taken."""
    with pytest.raises(SettingsError, match="az://container"):
        split_store_url(url)


def test_a_version_is_fetched(fake: Fake, tmp_path: Path) -> None:
    """A published model comes out of the cloud as it comes out of a folder, in the same two round trips."""
    publish(tmp_path, "tiny_int8")
    for path in filter(lambda each: each.is_file(), tmp_path.rglob("*")):
        fake.add(path.relative_to(tmp_path).as_posix(), path.read_bytes())
    store = open_store(fake.url)
    fetched = fetch_artifact(store, "tiny_int8", "latest")
    assert bytes(fetched.model) == golden("tiny_int8")
    assert store.list_folders() == ["tiny_int8"]
    assert sorted(fake.cloud.asked)[:3] == [
        "GET ",
        "GET models/tiny_int8/1/manifest.json",
        "GET models/tiny_int8/1/model.tflite",
    ]


def test_a_large_object_comes_in_ranges(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond one range the rest comes in parallel ones, hashed in their order and passed on in it."""
    monkeypatch.setattr(s3_store, "_PART_BYTES", 1000)
    content = random.Random(0).randbytes(5500)
    fake.add("model", content)
    seen = bytearray()
    data, digest = open_store(fake.url).fetch_digested("model", 10**6, seen.extend)
    assert bytes(data) == bytes(seen) == content
    assert digest == hashlib.sha256(content).hexdigest()
    assert fake.cloud.asked.count("GET models/model") == 6


def test_what_has_not_changed_is_not_sent_again(fake: Fake) -> None:
    """With the tag of the last answer only a change is read; what is too large is refused."""
    fake.add("aliases.json", b"one")
    store = open_store(fake.url)
    found = store.fetch_changed("aliases.json", 100, "")
    assert found is not None
    assert bytes(found[0]) == b"one"
    assert store.fetch_changed("aliases.json", 100, found[1]) is None
    fake.add("aliases.json", b"two")
    changed = store.fetch_changed("aliases.json", 100, found[1])
    assert changed is not None
    assert bytes(changed[0]) == b"two"
    with pytest.raises(StoreError, match="has 3 bytes, at most 2 were expected"):
        store.fetch("aliases.json", 2)


@pytest.mark.parametrize(
    ("fault", "kind", "message"),
    [
        (403, StoreAccessError, r"refused to read \w+://bucket/models/key \(Fault\): .*grant the"),
        (401, StoreAccessError, "refused to read"),
        (503, StoreUnavailableError, r"could not read \w+://bucket/models/key \(Fault\), retries included"),
    ],
)
def test_answers_become_clear_errors(fake: Fake, fault: int, kind: type[StoreError], message: str) -> None:
    """A refusal names the role that is missing; an outage says that it was tried again."""
    fake.cloud.fault = lambda _method, _key: fault
    with pytest.raises(kind, match=message):
        open_store(fake.url).fetch("key", 10)


def test_what_is_missing_is_named(fake: Fake) -> None:
    """A missing object is not a missing bucket, for readers and for writers."""
    with pytest.raises(ObjectNotFoundError, match=r"no object .*/models/key"):
        open_store(fake.url).fetch("key", 10)
    elsewhere = f"{fake.url.partition('://')[0]}://elsewhere"
    with pytest.raises(StoreLocationError, match=r"(bucket|container) of .* does not exist: create it"):
        open_store(elsewhere).fetch("key", 10)
    with pytest.raises(StoreLocationError, match="does not exist: create it"):
        objects_for(elsewhere).put(f"{elsewhere}/key", b"data", tag="")


def test_nothing_listens(fake: Fake, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud that cannot be reached is said to be that."""
    for name in ("GOOGLE_BASE_URL", "AZURE_STORAGE_ENDPOINT"):
        monkeypatch.setenv(name, f"http://127.0.0.1:1/{ACCOUNT}")
    with pytest.raises(StoreUnavailableError, match="could not be reached for"):
        open_store(fake.url).fetch("key", 10)


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        ("az://container/x", {}, "az://container: Account must be specified: set AZURE_STORAGE_ACCOUNT_NAME, or"),
        ("az://c@account/x", {"AZURE_STORAGE_ACCOUNT_KEY": "no key"}, "Invalid Access Key.*copy AZURE_STORAGE_ACCOUNT"),
        ("gs://bucket", {"GOOGLE_APPLICATION_CREDENTIALS": "/none.json"}, "file from /none.json.*takes the key file"),
        ("gs://bucket/a//b", {}, "has '//', '.' or '..' in its prefix"),
    ],
)
def test_an_environment_that_cannot_be(
    monkeypatch: pytest.MonkeyPatch, url: str, environment: dict[str, str], message: str
) -> None:
    """What is missing in the environment, or cannot be read, is named when the store is opened."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=message):
        open_store(url)


def test_no_credentials(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Where Google gives no token for what `gcloud auth` wrote, that is said, and what to set."""
    monkeypatch.setattr(s3_store, "_RETRIES", 0)
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    login = {"type": "authorized_user", "client_id": "a", "client_secret": "b", "refresh_token": "c"}
    (tmp_path / "login.json").write_text(json.dumps(login))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "login.json"))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")  # Google is out of reach, here as everywhere
    with pytest.raises(StoreAccessError, match="no credentials were found for gs://bucket/key: run it as a"):
        open_store("gs://bucket").fetch("key", 10)


def test_a_lost_answer_is_not_a_lost_write(fake: Fake) -> None:
    """A write that was done and not answered is sent again, and counts; another's is not taken for it."""
    place = objects_for(f"{fake.url}/")
    lose = ["once"]
    fake.cloud.fault = lambda method, _key: LOST_ANSWER if method == "PUT" and lose and lose.pop() else None
    assert place.put(f"{fake.url}/key", b"mine", tag="")
    lose.append("once")
    _, tag = place.get(f"{fake.url}/key") or (b"", "")
    assert place.put(f"{fake.url}/key", b"mine too", tag=tag)
    assert not place.put(f"{fake.url}/key", b"mine too", tag=tag)
    assert not place.put(f"{fake.url}/key", b"mine too", tag="")
    assert fake.cloud.objects["models/key"][0] == b"mine too"


def test_objects_are_listed_and_read_in_parts(fake: Fake) -> None:
    """Listings go over many pages, in order; a part is of the version that was listed, or refused."""
    place = objects_for(f"{fake.url}/")
    names = [f"m/{index:02d}.json" for index in range(8)]
    for name in reversed(names):
        fake.add(name, name.encode())
    found = list(place.list(f"{fake.url}/m/"))
    assert [info.url for info in found] == [f"{fake.url}/{name}" for name in names]
    assert [info.url for info in place.list(f"{fake.url}/m/0", found[5].url)] == [info.url for info in found[6:]]
    assert place.read(found[0], 2, 4) == b"00"
    assert place.head(found[0].url) == found[0]
    fake.add(names[0], b"another")
    with pytest.raises(ObjectReplacedError, match="was replaced"):
        place.read(found[0], 2, 4)
    for _ in range(2):  # a missing one is not an error
        place.delete(found[0].url)
    assert place.head(found[0].url) is None
    assert place.get(found[0].url) is None


def test_batch_scoring_stays_with_files_and_s3(fake: Fake) -> None:
    """An upload that could be suspended is refused, with where batch scoring writes."""
    with pytest.raises(SettingsError, match="batch scoring writes to file:///path or s3://"):
        objects_for(fake.url).upload(f"{fake.url}/key", 8)
