"""Streaming: rows that stay on disk are the rows that would be in memory, for whoever asks for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from litelambda.common.errors import DataError
from litelambda.data.dataset import Dataset
from litelambda.data.stored_rows import StoredRows, file_rows, needs_streaming, open_descriptor
from litelambda.evaluation.evaluate import run_artifact
from litelambda.recipe.load import load_recipe
from litelambda.training.input_pipeline import predict
from support.data_recipe import load, write_recipe
from support.training import load_rows, train_recipe


def noise(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Seeded random numbers."""
    return np.random.default_rng(0).normal(3, 2, shape).astype(np.float32)


@pytest.fixture(params=["npz", "compressed npz", "npy", "csv", "images"])
def section(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A `data` section of each kind, beside its data."""
    kind, folder = request.param, tmp_path / "set"
    arrays = {"x_train": noise(50, 3, 4), "y_train": np.arange(50) % 3, "x_test": noise(7, 3, 4), "y_test": np.ones(7)}
    if kind == "npy":
        folder.mkdir()
        for name, array in arrays.items():
            np.save(folder / name, array)
        return 'format = "npy"\npath = "set"'
    if kind == "csv":
        rows = [f"{a},{b},{'cat' if a > b else 'dog'}" for a, b in noise(60, 2)]
        (tmp_path / "set.csv").write_text("\n".join(["a,b,species", *rows]))
        return 'format = "csv"\npath = "set.csv"\nlabel = "species"'
    if kind == "images":
        for index, pixels in enumerate(np.random.default_rng(0).integers(0, 256, (30, 6, 5, 3), dtype=np.uint8)):
            (folder / "ab"[index % 2]).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / "ab"[index % 2] / f"{index}.png")
        return 'format = "images"\npath = "set"'
    (np.savez if kind == "npz" else np.savez_compressed)(tmp_path / "set.npz", **arrays)
    return 'format = "npz"\npath = "set.npz"'


@pytest.mark.parametrize("rule", ["none", "0-1", "standardize"])
def test_streamed_rows_are_the_rows_in_memory(tmp_path: Path, section: str, rule: str) -> None:
    """Every split, label and figure of the normalization is the same, to the last bit."""
    overrides = [f"data.normalize={rule}"]
    held, streamed = (load(tmp_path, section, *overrides, f"data.streaming={each}") for each in ("false", "true"))
    assert (held.streamed, streamed.streamed) == (False, True)
    assert held.validation is not None
    assert streamed.validation is not None
    assert (held.preprocessing, held.labels) == (streamed.preprocessing, streamed.labels)
    for ours, theirs in (
        (held.train, streamed.train), (held.validation, streamed.validation), (held.test, streamed.test)
    ):  # fmt: skip
        assert isinstance(ours.x, np.ndarray)
        assert isinstance(theirs.x, StoredRows)
        assert np.array_equal(ours.x, theirs.x[:])
        assert np.array_equal(ours.y, theirs.y)
    assert np.array_equal(held.representative(5, 1), streamed.representative(5, 1))
    assert "read from disk" in streamed.describe()


def test_small_data_is_held_in_memory(tmp_path: Path, section: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the recipe does not say, rows stay on disk if they would crowd this machine's memory, and only then."""
    assert not load(tmp_path, section).streamed
    monkeypatch.setattr("litelambda.data.stored_rows._memory_bytes", lambda: 64)
    assert load(tmp_path, section).streamed
    monkeypatch.undo()
    assert not needs_streaming(1 << 20)
    assert needs_streaming(1 << 60)


def test_rows_of_a_file_come_in_any_order(tmp_path: Path) -> None:
    """Neighbours, repetitions, none at all; reshaped, taken and scaled on the way."""
    array = np.arange(40, dtype=np.uint16).reshape(20, 2)
    (tmp_path / "rows").write_bytes(b"head" + array.tobytes())
    rows = file_rows(open_descriptor(tmp_path / "rows"), 4, (20, 2), np.uint16, "rows")
    for wanted in ([3, 4, 5, 0, 0, 19], [], [7]):
        assert np.array_equal(rows[np.array(wanted, np.intp)], array[np.array(wanted, np.intp)])
    assert np.array_equal(rows[5:8], array[5:8])
    some = rows.take(np.array([9, 2, 3])).with_row_shape((2, 1)).map(lambda part: part * 2.0, np.float64)
    assert some.shape == (3, 2, 1)
    assert np.array_equal(some[1:][..., 0], array[[2, 3]] * 2.0)
    with pytest.raises(DataError, match="rows is truncated: it is too short for 21 rows"):
        file_rows(open_descriptor(tmp_path / "rows"), 4, (21, 2), np.uint16, "rows")


def test_arrays_that_cannot_be_streamed_are_refused(tmp_path: Path) -> None:
    """Columns that lie together, objects and a lone file are named, with what to do."""
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "set" / "x", np.asfortranarray(noise(9, 2)))
    np.save(tmp_path / "set" / "y", np.arange(9) % 2)
    section = 'format = "npy"\npath = "set"'
    with pytest.raises(DataError, match=r"x is in Fortran order.*data\.streaming = false"):
        load(tmp_path, section, "data.streaming=true")
    assert load(tmp_path, section).input_shape == (2,)
    np.save(tmp_path / "set" / "x", np.array([{}] * 9), allow_pickle=True)
    with pytest.raises(DataError, match=r"not a readable folder of \.npy files: object arrays are not supported"):
        load(tmp_path, section)
    np.save(tmp_path / "set" / "x", np.float32(3))
    with pytest.raises(DataError, match="x is a single number, expected rows"):
        load(tmp_path, section)
    np.save(tmp_path / "set" / "x", np.array([[1.0], [np.nan], [2.0]] * 3))
    with pytest.raises(DataError, match="row 1 of the training split holds NaN"):
        load(tmp_path, section, "data.streaming=true")
    with pytest.raises(DataError, match=r"is a file; data\.format = 'npy' expects a folder"):
        load(tmp_path, 'format = "npy"\npath = "recipe.toml"')


def test_broken_images_are_found_before_training(tmp_path: Path) -> None:
    """A streamed folder is looked through at once: sizes that differ and files that are none."""
    section = 'format = "images"\npath = "set"\nstreaming = true'
    for name in "ab":
        (tmp_path / "set" / name).mkdir(parents=True)
        Image.new("L", (5, 3)).save(tmp_path / "set" / name / "0.png")
    Image.new("L", (7, 3)).save(tmp_path / "set" / "b" / "wide.png")
    with pytest.raises(DataError, match=r"wide\.png has 3 x 7 pixels.*data\.image_size"):
        load(tmp_path, section)
    (tmp_path / "set" / "b" / "wide.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"wide\.png: no picture of a known format"):
        load(tmp_path, section)


def test_streaming_trains_the_same_model(tiny_recipe: Path) -> None:
    """The same seed gives the same weights and figures to the last bit, augmented or not, wherever the rows lie."""
    for more in ([], ["train.augmentation={noise=0.1}", "train.class_weights=balanced"]):
        found = []
        for streaming in ("false", "true"):
            recipe = load_recipe(tiny_recipe, ["train.epochs=2", f"data.streaming={streaming}", *more])
            data = load_rows(recipe)
            trained = train_recipe(recipe, data)
            found.append((trained.history, trained.model.get_weights(), predict(trained.model, data.test.x)))
        (history, weights, outputs), (other_history, other_weights, other_outputs) = found
        assert history == other_history
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(weights, other_weights, strict=True))
        assert np.array_equal(outputs, other_outputs)


def test_rows_that_cannot_be_read_end_training(tiny_recipe: Path) -> None:
    """What is wrong with the rows is the error, not what TensorFlow made of it."""
    recipe = load_recipe(tiny_recipe, ["train.epochs=1", "data.streaming=true"])
    data = load_rows(recipe)

    def broken(part: Any) -> Any:
        raise DataError("row 3 is gone")

    assert isinstance(data.train.x, StoredRows)
    rows = data.train.x.map(broken, np.float32)
    damaged = Dataset(type(data.train)(rows, data.train.y), None, data.test, data.labels, 3, None)
    with pytest.raises(DataError, match=r"^row 3 is gone$"):
        train_recipe(recipe, damaged)


SCRIPT = """
import re, sys
from pathlib import Path
from litelambda.recipe.load import load_recipe
from litelambda.data.dataset import load_data
from litelambda.training.train import train
def peak_mb():
    # This process's own: `getrusage` begins with the peak of the parent that it was forked from.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024
cheap = ["model.hidden=[2]", "train.epochs=1", "train.batch_size=32"]
small = load_recipe(sys.argv[1], [*cheap, "data.path=small"])
def rows_of(recipe):
    return load_data(recipe.data, recipe.folder)
train(small.model, small.train, rows_of(small), small.folder, lambda *_: None)
before = peak_mb()
large = load_recipe(sys.argv[1], cheap)
data = rows_of(large)
trained = train(large.model, large.train, data, large.folder, lambda *_: None)
assert trained.num_epochs == 1 and data.streamed
print(peak_mb() - before)
"""


@pytest.mark.slow
def test_data_larger_than_what_training_takes(tmp_path: Path) -> None:
    """An epoch over 400 MB on disk, 1,600 MB as float32, adds less than half of the former to the process."""
    for name, num_rows in (("large", 6400), ("small", 640)):
        (tmp_path / name).mkdir()
        rows = np.lib.format.open_memmap(tmp_path / name / "x.npy", "w+", np.uint8, (num_rows, 64 * 1024))
        rows[::64, ::1024] = 200  # the rest of the file takes no room
        rows.flush()
        np.save(tmp_path / name / "y.npy", np.arange(num_rows) % 2)
    recipe = write_recipe(tmp_path, 'format = "npy"\npath = "large"\nstreaming = true\nnormalize = "0-1"')
    assert (tmp_path / "large" / "x.npy").stat().st_size > 400e6
    command = [sys.executable, "-c", SCRIPT, str(recipe)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert float(done.stdout) < 200  # in memory: 400 and, in float32, four times that


def test_the_artifact_runs_on_streamed_rows(tiny_recipe: Path, tiny_tflite: bytes) -> None:
    """Evaluation takes rows from disk, a chunk at a time, and gives what it gives for those in memory."""

    class Artifact:
        artifact = tiny_tflite

    held, streamed = (load_rows(load_recipe(tiny_recipe, [f"data.streaming={each}"])) for each in ("false", "true"))
    outputs = [run_artifact(Artifact(), each, lambda *_: None) for each in (held, streamed)]  # type: ignore[arg-type] # of a `Quantized` it reads no more
    assert np.array_equal(*outputs)
