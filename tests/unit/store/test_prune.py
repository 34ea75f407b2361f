"""`litelambda prune`: old versions go, those that something names stay, and no half of one is ever served."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from litelambda.cli.main import main
from litelambda.common.errors import PublishError
from litelambda.store.artifact_store import Store
from litelambda.store.audit_check import check_store, read_trail
from litelambda.store.prune import plan_prune, prune
from litelambda.store.version_files import VersionFiles
from litelambda_serving.errors import StoreAccessError
from litelambda_serving.objects.files import FileObjects

MANIFEST = b'{"artifact": "model.tflite", "created": "2026-11-23T12:00:00Z"}'


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Seven versions, of which `latest` means 7, `old` 2, its canary 3 and its shadow 4."""
    made = Store(tmp_path.as_uri())
    for version in range(1, 8):
        made.publish("m", version, {"model.tflite": b"flatbuffer", "report.json": b"{}"}, MANIFEST)
    made.set_alias("m", "latest", 7)
    made.set_alias("m", "old", 2, {3: 10}, 4)
    return made


def run(capsys: pytest.CaptureFixture[str], store: Store, *options: str) -> tuple[int, str, str]:
    """The command's exit code, stdout and stderr."""
    code = main(["prune", "m", "--store", store.url, *options])
    return code, *capsys.readouterr()


def records(store: Store) -> list[tuple[Any, ...]]:
    """What the trail says of deletions."""
    found = read_trail(store).records
    return [(each["outcome"], each["version"]) for each in found if each["action"] == "prune"]


def test_it_shows_what_would_go_and_deletes_nothing(store, capsys):
    """Without --yes there are a table, the bytes, what breaks, and the reason of each version that stays."""
    code, out, err = run(capsys, store, "--keep", "2")
    lines = {line.split()[0]: line for line in out.splitlines()}
    assert code == 0
    assert lines["1"].endswith("goes")
    assert lines["5"].endswith("goes")
    assert lines["2"].endswith("stays: old")
    assert lines["3"].endswith("stays: old:canary=10%")
    assert lines["4"].endswith("stays: old:shadow")
    assert lines["6"].endswith("stays: among the 2 newest")
    assert lines["7"].endswith("stays: latest, among the 2 newest")
    num_bytes = 2 * (len(b"flatbuffer") + len(b"{}") + len(MANIFEST))
    assert f"prune: 2 versions of m would go, {num_bytes} bytes\n" in out
    assert "functions with MODEL_VERSION" in out
    assert "nothing was deleted: give --yes" in err
    assert store.list_versions("m") == [1, 2, 3, 4, 5, 6, 7]


def test_it_deletes_with_yes_and_again_has_nothing_to_do(store, capsys, tmp_path):
    """Every file of the versions goes, the trail says so and still holds, and no number is given again."""
    code, out, err = run(capsys, store, "--yes", "--json")
    document = json.loads(out)
    assert (code, document["deleted"], [each["version"] for each in document["versions"]]) == (0, True, [1])
    assert document["kept"][0] == {
        "version": 2,
        "bytes": 12 + len(MANIFEST),
        "created": "2026-11-23T12:00:00Z",
        "reasons": ["old"],
    }
    assert "prune: m:1 is gone" in err
    assert not list(tmp_path.glob("m/1/*"))
    assert (store.list_versions("m"), store.next_version("m")) == ([2, 3, 4, 5, 6, 7], 8)
    assert records(store) == [("begun", 1), ("done", 1)]
    assert (read_trail(store).findings, check_store(store, read_trail(store).records)) == ([], [])
    code, out, _ = run(capsys, store, "--yes")
    assert (code, "nothing to delete of m" in out) == (0, True)


def test_a_run_that_was_stopped_is_finished_by_the_next(store, tmp_path, monkeypatch):
    """The manifest goes first: what is left is no version, and is told from the files of a publisher at work."""
    (tmp_path / "m/5/manifest.json").unlink()  # as of a publisher that has not come so far
    delete, calls = FileObjects.delete, []

    def stop(self: FileObjects, url: str) -> None:
        calls.append(url)
        if len(calls) == 2:
            raise KeyboardInterrupt
        delete(self, url)

    plan = plan_prune(store, "m")
    monkeypatch.setattr(FileObjects, "delete", stop)
    with pytest.raises(KeyboardInterrupt):
        prune(store, plan)
    assert calls[0].endswith("m/1/manifest.json")
    assert 1 not in store.list_versions("m")
    assert records(store) == [("begun", 1), ("failed", 1)]
    (rest,) = plan_prune(store, "m").going
    assert (rest.number, rest.is_partial) == (1, True)
    prune(store, plan_prune(store, "m"))
    assert plan_prune(store, "m").going == []
    assert {number for number, _, _ in VersionFiles(store, "m").list()} == {2, 3, 4, 5, 6, 7}


def test_a_version_that_is_named_meanwhile_stays(store, monkeypatch):
    """An alias set after the plan keeps its version, and one set while the manifest goes brings it back."""
    plan = plan_prune(store, "m")
    store.set_alias("m", "back", 1)
    with pytest.raises(PublishError, match="version 1 of m stays: back names it now"):
        prune(store, plan)
    store.set_alias("m", "back", 7)
    delete = FileObjects.delete

    def race(self: FileObjects, url: str) -> None:
        store.set_alias("m", "back", 1)
        delete(self, url)

    monkeypatch.setattr(FileObjects, "delete", race)
    with pytest.raises(PublishError, match="back names it now"):
        prune(store, plan)
    assert store.read_manifest("m", 1) == MANIFEST
    assert store.read_file("m", 1, "model.tflite") == b"flatbuffer"


def test_a_store_that_forbids_deletion(store, monkeypatch, capsys):
    """The refusal names the setting, is recorded, and the version is as it was."""

    def refuse(_self: FileObjects, url: str) -> None:
        raise StoreAccessError(f"S3 refused {url} (AccessDenied)")

    monkeypatch.setattr(FileObjects, "delete", refuse)
    code, _, err = run(capsys, store, "--yes")
    assert (code, "version 1 of m stays as it was" in err, "ImmutableVersions=on" in err) == (1, True, True)
    assert store.read_manifest("m", 1) == MANIFEST
    assert records(store) == [("begun", 1), ("failed", 1)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["x"], "has no model 'x'; the store has the models m"),
        (["m", "--keep", "0"], "'--keep': 0 is not in the range"),
    ],
)
def test_wrong_usage(store, capsys, arguments, message):
    """A model that is not there, and keeping none: a version's number is never given twice."""
    assert main(["prune", *arguments, "--store", store.url]) == 2
    assert message in capsys.readouterr().err
