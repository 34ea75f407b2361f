"""The ready recipe for MNIST, built by the command, and batch scoring with it: its accuracy, and a million rows."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda.common.paths import PROJECT, RECIPES

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
_ROWS = 1_000_000


@pytest.fixture(scope="module")
def mnist_build(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], Path]:
    """What `litelambda build --json` printed for the ready MNIST recipe, and the store."""
    store = tmp_path_factory.mktemp("mnist")
    command = [sys.executable, "-m", "litelambda", "build", str(RECIPES / "mnist_mlp.toml")]
    command += ["--store", store.as_uri(), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout), store


@pytest.fixture(scope="module")
def store(mnist_build: tuple[dict[str, Any], Path]) -> Path:
    """A store with the ready recipe's model."""
    return mnist_build[1]


@pytest.fixture(scope="module")
def images() -> Any:
    """The labelled images of MNIST."""
    with np.load(PROJECT / "build" / "data" / "mnist.npz") as data:
        return {name: data[name] for name in data.files}


def score(source: Path, output: Path, store: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    """The command's summary."""
    capsys.readouterr()
    assert main(["score", str(source), str(output), "--model", "mnist_mlp", "--store", store.as_uri(), "--json"]) == 0
    summary: dict[str, Any] = json.loads(capsys.readouterr().out)
    return summary


def test_the_mnist_recipe_keeps_its_promises(mnist_build: tuple[dict[str, Any], Path]) -> None:
    """Float and int8 reach 0.97 on all test images, within 0.005 of each other, in 30 % of the float model's size."""
    result, store = mnist_build
    before, after = (result["metrics"][model]["accuracy"] for model in ("float", "quantized"))
    assert result["metrics"]["num_examples"] == 10_000
    assert min(before, after) >= 0.97
    assert before - after <= 0.005
    assert result["size_bytes"]["quantized"] <= 0.3 * result["size_bytes"]["float"]
    manifest = json.loads((store / "mnist_mlp" / "1" / "manifest.json").read_bytes())
    assert manifest["signatures"]["predict"]["inputs"][0]["name"] == "image"
    assert manifest["labels"] == list("0123456789")


def test_accuracy_is_the_builds(store: Path, images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Raw pixels, as an array and as text, give exactly the accuracy of the build's int8 model."""
    manifest = json.loads((store / "mnist_mlp" / "1" / "manifest.json").read_bytes())
    pixels, labels = images["x_test"], images["y_test"]
    np.save(tmp_path / "pixels.npy", pixels)
    with (tmp_path / "rows.jsonl").open("w") as file:
        for row, label in zip(pixels.reshape(len(pixels), -1), labels, strict=True):
            file.write(json.dumps({"image": row.tolist(), "truth": str(label)}) + "\n")
    score(tmp_path / "pixels.npy", tmp_path / "out.npy", store, capsys)
    accuracy = np.mean(np.load(tmp_path / "out.npy").argmax(axis=1) == labels)
    assert accuracy == manifest["metrics"]["quantized"]["accuracy"]
    summary = score(tmp_path / "rows.jsonl", tmp_path / "out.jsonl", store, capsys)
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert np.mean([line["label"] == line["truth"] for line in lines]) == accuracy
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (10_000, 10_000, 0)


def test_a_million_rows(store: Path, images: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every one of a million rows is counted once, in the sums and in the histogram, and is where it belongs."""
    known = np.concatenate([images["x_train"], images["x_test"]])
    source = tmp_path / "million.npy"
    array = np.lib.format.open_memmap(source, "w+", np.uint8, (_ROWS, 28, 28))
    for start in range(0, _ROWS, len(known)):
        array[start : start + len(known)] = known[: _ROWS - start]
    del array
    summary = score(source, tmp_path / "out.npy", store, capsys)
    source.unlink()
    assert (summary["rows_in"], summary["rows_out"], summary["rows_bad"]) == (_ROWS, _ROWS, 0)
    found = np.load(tmp_path / "out.npy").argmax(axis=1)
    assert len(found) == _ROWS
    counts = {str(digit): int(count) for digit, count in enumerate(np.bincount(found, minlength=10))}
    assert summary["predictions"]["probabilities"]["classes"] == counts
    for start in range(len(known), _ROWS, len(known)):
        part = found[start : start + len(known)]
        np.testing.assert_array_equal(part, found[: len(part)])
