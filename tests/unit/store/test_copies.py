"""Copying a version to another store: whole, once, and completed after an interruption."""

from __future__ import annotations

from pathlib import Path

import pytest

from litelambda.common.errors import PublishError, UsageError
from litelambda.store.artifact_store import Store
from litelambda.store.copies import copy_version, find_version
from litelambda_serving.errors import DigestError
from support.golden_store import publish


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """A store with version 3 of tiny_int8, signed."""
    publish(tmp_path / "source", "tiny_int8", 3)
    (tmp_path / "source" / "tiny_int8" / "3" / "manifest.json.sig").write_bytes(b"signature")
    return Store(tmp_path / "source")


@pytest.fixture
def target(tmp_path: Path) -> Store:
    """An empty store."""
    return Store(tmp_path / "target")


def _files(store: Store) -> dict[str, bytes]:
    root = Path(store.url.removeprefix("file://"), "tiny_int8", "3")
    return {path.name: path.read_bytes() for path in root.iterdir() if not path.name.endswith(".lock")}


def test_a_version_keeps_its_number_and_digest(source: Store, target: Store) -> None:
    """The copy is the same files under the same number, served as `latest`; a second time there is nothing to do."""
    version = find_version(source, "tiny_int8")
    assert copy_version(version, target)
    assert _files(target) == _files(source)
    assert find_version(target, "tiny_int8@latest").digest == version.digest
    assert not copy_version(version, target)


def test_a_version_that_was_signed_since_gets_its_signature(source: Store, target: Store) -> None:
    """A copy that is there already is signed as its source is, and otherwise left alone."""
    version = find_version(source, "tiny_int8")
    assert copy_version(version, target)
    Path(source.url.removeprefix("file://"), "tiny_int8", "3", "manifest.json.sig").write_bytes(b"with another key")
    assert copy_version(version, target)
    assert _files(target) == _files(source)
    assert not copy_version(version, target)


def test_an_interrupted_copy_is_completed(source: Store, target: Store, tmp_path: Path) -> None:
    """Files without a manifest are what an interruption left: the rest is written."""
    (tmp_path / "target" / "tiny_int8" / "3").mkdir(parents=True)
    (tmp_path / "target" / "tiny_int8" / "3" / "model.tflite").write_bytes(_files(source)["model.tflite"])
    assert copy_version(find_version(source, "tiny_int8:3"), target)
    assert _files(target) == _files(source)


def test_a_number_that_is_taken_is_refused(source: Store, target: Store, tmp_path: Path) -> None:
    """Another version of that number stays as it is, published or begun."""
    publish(tmp_path / "target", "tiny_int8", 3, labels=["a", "b", "c"])
    with pytest.raises(PublishError, match="has another tiny_int8/3: build or import with --store"):
        copy_version(find_version(source, "tiny_int8:3"), target)
    (tmp_path / "target" / "tiny_int8" / "3" / "manifest.json").unlink()
    (tmp_path / "target" / "tiny_int8" / "3" / "model.tflite").write_bytes(b"other")
    with pytest.raises(PublishError, match="has another"):
        copy_version(find_version(source, "tiny_int8:3"), target)


def test_what_is_damaged_is_not_copied(source: Store, target: Store, tmp_path: Path) -> None:
    """A file that is not what its manifest pins goes nowhere; a model that is not there is a mistake."""
    (tmp_path / "source" / "tiny_int8" / "3" / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(DigestError):
        copy_version(find_version(source, "tiny_int8:3"), target)
    assert target.list_models() == []
    with pytest.raises(UsageError):
        find_version(source, "absent")
