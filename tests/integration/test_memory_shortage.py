"""A build that runs out of memory says where, and publishes nothing."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from litelambda.commands.build import build
from litelambda.commands.import_model import import_model
from litelambda.common.errors import MemoryShortageError
from litelambda.common.memory_errors import shortages_explained
from litelambda.common.progress import Reporter
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.recipe.load import load_recipe

LIMIT_BYTES = 3 << 30


def test_rows_that_do_not_fit_into_memory_end_the_build(tiny_recipe: Path, tmp_path: Path) -> None:
    """A real process without the memory for its rows: exit code 1, the stage, and the key that helps."""
    (tmp_path / "set").mkdir()
    for name, shape in (("x", (4096, 1 << 20)), ("y", (4096,))):
        np.lib.format.open_memmap(tmp_path / "set" / f"{name}.npy", "w+", np.uint8, shape).flush()
    command = [
        sys.executable, "-m", "litelambda", "build", str(tiny_recipe), "--store", (tmp_path / "store").as_uri(),
        "--set", f"data={{format='npy', path='{tmp_path}/set', streaming=false}}",
    ]  # fmt: skip
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT_BYTES, LIMIT_BYTES)),
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("litelambda: error: the stage 'data' ran out of memory (Unable to allocate ")
    assert "set data.streaming = true, and rows stay on disk. Nothing was published" in done.stderr
    assert not (tmp_path / "store").exists()


def test_a_tensor_that_does_not_fit_is_a_shortage(tiny_recipe: Path, tmp_path: Path) -> None:
    """TensorFlow's own error for it, here of a real allocation, is explained; other errors are left alone."""
    tf = load_tensorflow()
    with (
        pytest.raises(MemoryShortageError, match=r"the stage 'train' ran out of memory .*: lower train\.batch_size"),
        shortages_explained("train"),
    ):
        tf.random.uniform([1 << 22, 1 << 22]).numpy()
    with pytest.raises(ValueError, match=r"^as it is$"), shortages_explained("train"):
        raise ValueError("as it is")


def test_a_stage_without_memory_publishes_nothing(
    tiny_recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What training raises for want of memory names the stage, through every layer that wraps it."""

    def starved(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("litelambda.training.train.fit", starved)
    with pytest.raises(MemoryShortageError, match=r"the stage 'train' ran out of memory \(MemoryError\)"):
        build(load_recipe(tiny_recipe), tmp_path.as_uri(), Reporter())
    assert list(tmp_path.iterdir()) == []


def test_an_import_without_memory_publishes_nothing(
    tiny_tflite: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it is of a model that is imported."""

    def starved(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("litelambda.commands.import_model.verify", starved)
    (tmp_path / "tiny.tflite").write_bytes(tiny_tflite)
    store = tmp_path / "store"
    with pytest.raises(MemoryShortageError, match=r"the stage 'verify' .* with more memory\. Nothing was published"):
        import_model(tmp_path / "tiny.tflite", "tiny", store.as_uri())
    assert not store.exists()
