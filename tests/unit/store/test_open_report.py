"""A report is opened only as it was published."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from litelambda.cli.main import main
from litelambda.commands.import_tflite import read_tflite
from litelambda.publishing.encryption import Encryption
from litelambda.publishing.publish import Description, publish
from litelambda.store.artifact_store import Store
from litelambda.store.open_report import open_report
from litelambda_serving.errors import DigestError
from support.golden_store import golden

PAGE = b"<!doctype html><title>m</title><h1>m</h1><!--checked--><p>good</p>"


def published(folder: Path, encryption: Encryption | None = None, page: bytes = PAGE) -> Store:
    """A store with version 1 of the model m, and its report."""
    artifact = golden("half_plus_two")
    (folder / "m.tflite").write_bytes(artifact)
    signature = read_tflite(folder / "m.tflite").signature
    description = Description(signature, {"dynamic": False}, {}, None, {}, {}, {}, {})
    store = Store((folder / "store").as_uri())
    files = {"model.tflite": artifact, **({"report.html": page} if page else {})}
    publish(store, "m", ["latest"], files, description, encryption=encryption)
    return store


def test_the_page_is_opened_with_what_was_checked(tmp_path: Path) -> None:
    """What is opened is the published page and the manifest's digest; the page in the store stays as it was."""
    store = published(tmp_path)
    digest = hashlib.sha256((tmp_path / "store/m/1/manifest.json").read_bytes()).hexdigest()
    page = open_report(store.url, "m", show=False).read_bytes()
    before, after = PAGE.split(b"<!--checked-->")
    assert page.startswith(before)
    assert page.endswith(after)
    assert digest.encode() in page
    assert b"Aliases now: latest." in page
    assert (tmp_path / "store/m/1/report.html").read_bytes() == PAGE


def test_a_page_that_was_changed_is_not_opened(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One byte suffices; the message says what was found, what was pinned and what to do."""
    store = published(tmp_path)
    changed = PAGE.replace(b"good", b"evil")
    (tmp_path / "store/m/1/report.html").write_bytes(changed)
    assert main(["models", "--report", "m", "--store", store.url]) == 1
    said = capsys.readouterr().err
    for text in ("was changed after it was published", "It was not opened", "build the version again"):
        assert text in said
    assert hashlib.sha256(changed).hexdigest() in said
    assert hashlib.sha256(PAGE).hexdigest() in said


def test_a_manifest_that_was_changed_with_the_page_is_refused(tmp_path: Path) -> None:
    """The aliases pin the manifest: a page and a manifest that agree with each other are not enough."""
    store = published(tmp_path)
    folder, changed = tmp_path / "store/m/1", PAGE.replace(b"good", b"evil")
    manifest = json.loads((folder / "manifest.json").read_bytes())
    manifest["files"]["report.html"]["sha256"] = hashlib.sha256(changed).hexdigest()
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "report.html").write_bytes(changed)
    for reference in ("m", "m:1"):
        with pytest.raises(DigestError):
            open_report(store.url, reference, show=False)


def test_a_page_that_is_gone_or_never_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report that was deleted is not one that never was."""
    store = published(tmp_path)
    (tmp_path / "store/m/1/report.html").unlink()
    assert main(["models", "--report", "m", "--store", store.url]) == 1
    assert "which has been deleted" in capsys.readouterr().err
    (tmp_path / "other").mkdir()
    store = published(tmp_path / "other", page=b"")
    assert main(["models", "--report", "m", "--store", store.url]) == 2
    assert "has no report.html" in capsys.readouterr().err


def test_the_report_of_an_encrypted_version_needs_no_key(tmp_path: Path) -> None:
    """The page is not encrypted, and checked as every other."""
    assert main(["keygen", str(tmp_path / "key"), "--encryption"]) == 0
    store = published(tmp_path, Encryption(str(tmp_path / "key")))
    assert b"good" in open_report(store.url, "m", show=False).read_bytes()
    (tmp_path / "store/m/1/report.html").write_bytes(PAGE + b" ")
    with pytest.raises(DigestError, match="was changed"):
        open_report(store.url, "m", show=False)
