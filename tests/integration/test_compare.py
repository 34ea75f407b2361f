"""`litelambda compare` on two versions that prepare the same raw rows in different ways."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda.commands.compare import compare
from litelambda.commands.score import score
from support.built import BuiltArtifact

LABELS = ["a", "<script>alert(1)</script>", "c"]


@pytest.fixture(scope="module")
def store(built_artifact: BuiltArtifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built store with a second version, of the same artifact, whose rows are scaled by another number."""
    folder = tmp_path_factory.mktemp("compared") / "store"
    shutil.copytree(Path(built_artifact.folder).parents[1], folder)
    shutil.copytree(folder / "tiny/1", folder / "tiny/2")
    manifest: dict[str, Any] = json.loads((folder / "tiny/2/manifest.json").read_bytes())
    form = manifest["preprocessing"]["features"]
    scale, offset = form["scale"], form["offset"]
    form |= {"scale": [scale] * 4, "offset": [offset + 0.3, offset, offset, offset]}
    manifest |= {"version": 2, "labels": LABELS}
    (folder / "tiny/2/manifest.json").write_text(json.dumps(manifest))
    manifest |= {"version": 3, "labels": ["0", "1", "2"]}
    shutil.copytree(folder / "tiny/2", folder / "tiny/3")
    (folder / "tiny/3/manifest.json").write_text(json.dumps(manifest))
    return folder


def predicted(store: Path, version: int, rows: Path, folder: Path) -> Any:
    """The classes that batch scoring finds."""
    score(rows, folder / f"{version}.npy", model=f"tiny:{version}", store=store)
    return np.load(folder / f"{version}.npy").argmax(axis=1)


def test_each_version_prepares_the_rows_itself(store: Path, tmp_path: Path) -> None:
    """Agreement and flips are those of the classes that batch scoring finds for each."""
    rows = np.random.default_rng(5).integers(0, 256, (200, 4)).astype(np.float32)
    np.save(tmp_path / "rows.npy", rows)
    first, second = (predicted(store, version, tmp_path / "rows.npy", tmp_path) for version in (1, 3))
    found = compare("tiny:1", "tiny:3", data=tmp_path / "rows.npy", store=store).found
    assert found.rows == 200
    assert found.agreement == pytest.approx(np.mean(first == second))
    assert 0 < len(found.flips) == int((first != second).sum())
    assert [(flip.row, flip.first, flip.second) for flip in found.flips] == [
        (int(row), str(first[row]), str(second[row])) for row in np.flatnonzero(first != second)
    ]
    assert found.metrics == []


def test_the_test_rows_of_a_recipe_have_targets(
    store: Path, tiny_recipe: Path, built_artifact: BuiltArtifact, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first version's accuracy is the one that its build measured; sizes and latency stand side by side."""
    command = ["compare", "tiny@stable", "tiny/3", "--recipe", str(tiny_recipe), "--store", str(store), "--json"]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["rows"] == 120
    accuracy = built_artifact.result.metrics["quantized"]["accuracy"]
    assert found["metrics"][0]["accuracy"] == pytest.approx(accuracy)
    first_only, second_only = found["only_right"]
    assert found["metrics"][1]["accuracy"] == pytest.approx(accuracy + (second_only - first_only) / 120)
    first, second = found["versions"]
    assert (first["version"], first["aliases"], second["version"], second["aliases"]) == (
        1,
        ["latest", "stable"],
        3,
        [],
    )
    assert first["stored_bytes"] == (built_artifact.folder / "model.tflite").stat().st_size
    assert 0 < second["latency_us"]["median"] <= second["latency_us"]["p90"]


def test_text_and_page_show_what_is_answered_differently(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A label that is markup is text; the other version may be in another store."""
    np.save(tmp_path / "rows.npy", np.array([[200, 190, 0, 0], [0, 200, 0, 0]], np.float32))
    other = tmp_path / "elsewhere"
    shutil.copytree(store, other)
    rows = ["--data", str(tmp_path / "rows.npy"), "--html", str(tmp_path / "page.html"), "--store", str(store)]
    assert main(["compare", "tiny", f"{other}/tiny/2", *rows]) == 0
    said = capsys.readouterr().out
    assert "Both answer 2 of the rows of" in said
    assert "answered differently:" in said
    assert f"{other.as_uri()}/tiny/2" in said
    page = (tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "Answered differently" in page


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiny:1", "tiny:2"], "give the rows to compare on: --data FILE, or --recipe"),
        (["tiny:1", "tiny:2", "--data", "a.csv", "--recipe", "b.toml"], "give the rows to compare on"),
        (["tiny:1", "tiny:2", "--recipe", "b.toml", "--target", "y"], "--target names a field of --data"),
        (["tiny:1", "tiny/new", "--data", "a.csv"], "'tiny/new' does not end with a version: expected NAME/VERSION"),
        (["tiny:1", "tiny@best", "--data", "a.csv"], "'tiny' has no alias 'best'"),
        (["tiny:1", "nowhere/tiny/2", "--data", "a.csv"], "there is no store at"),
    ],
)
def test_what_cannot_be_compared_is_wrong_usage(
    store: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The message says what was expected."""
    assert main(["compare", *arguments, "--store", str(store)]) == 2
    assert message in capsys.readouterr().err


def test_a_version_that_is_not_there_is_named_with_those_that_are(
    store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before any row is read."""
    assert main(["compare", "tiny:1", "tiny:9", "--data", "a.csv", "--store", str(store)]) == 1
    assert "tiny has no version 9" in capsys.readouterr().err
