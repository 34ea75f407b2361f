"""Several hosts train one model: real processes on loopback, each a `litelambda build` with its TF_CONFIG."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from litelambda.keras_tools.backend import load_keras
from litelambda.recipe.load import load_recipe
from support.ports import free_port
from support.training import train_recipe

OVERRIDES = [
    "train.epochs=3", "train.batch_size=64", "train.class_weights=balanced", "model.l2=0.001",
    "train.augmentation={noise=0.01}", "train.warmup_epochs=0.5", "data.streaming=true",
]  # fmt: skip


# The command itself, which tells of every epoch although nobody watches a terminal.
SCRIPT = """
import runpy
from litelambda.common import progress
progress.PlainReporter.show_progress = lambda self, stage, fraction, text: print(text, flush=True)
runpy.run_module("litelambda", run_name="__main__")
"""


def start(recipe: Path, store: Path, *overrides: str) -> list[subprocess.Popen[str]]:
    """Start `litelambda build` as two workers."""
    addresses = [f"127.0.0.1:{free_port()}" for _ in range(2)]
    command = [sys.executable, "-c", SCRIPT, "build", str(recipe), "--store", store.as_uri()]
    for override in overrides:
        command += ["--set", override]
    limits = {"OMP_NUM_THREADS": "1", "TF_NUM_INTRAOP_THREADS": "1"}
    return [
        subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ
            | limits
            | {"TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})},
        )
        for index in range(2)
    ]


@pytest.mark.slow
def test_two_hosts_train_the_model_that_one_would(tiny_recipe: Path, tmp_path: Path) -> None:
    """Both end well, the first alone publishes, and the weights are those of one process with the same batches."""
    ended = [(each.communicate(timeout=600), each.returncode) for each in start(tiny_recipe, tmp_path, *OVERRIDES)]
    (chief, chief_code), (worker, worker_code) = ended
    assert chief_code == 0, chief[1][-2000:]
    assert worker_code == 0, worker[1][-2000:]
    assert worker[0].splitlines()[-1] == "worker 1 has trained with the others; worker 0 publishes"
    assert [path.name for path in (tmp_path / "tiny").iterdir() if path.is_dir()] == ["1"]
    report = json.loads((tmp_path / "tiny" / "1" / "report.json").read_bytes())
    recipe = load_recipe(tiny_recipe, OVERRIDES)
    alone = train_recipe(recipe)
    together = load_keras().models.load_model(tmp_path / "tiny" / "1" / "model.keras")
    assert len(alone.history["loss"]) == 3
    for ours, theirs in zip(together.get_weights(), alone.model.get_weights(), strict=True):
        assert np.allclose(ours, theirs, rtol=1e-3, atol=1e-4)
    for name, values in report["train"]["history"].items():
        assert values == pytest.approx(alone.history[name], rel=1e-3)


@pytest.mark.slow
def test_a_host_that_dies_ends_the_others(tiny_recipe: Path, tmp_path: Path) -> None:
    """TensorFlow misses its heartbeat within some seconds: an error that says so, and nothing is published."""
    chief, worker = start(tiny_recipe, tmp_path, "train.epochs=100000")
    with chief, worker:
        assert chief.stdout is not None
        assert chief.stdout.readline().startswith("epoch 1/")
        worker.kill()
        _, errors = chief.communicate(timeout=600)
        worker.communicate()
    assert chief.returncode == 1, errors[-2000:]
    assert "litelambda: error: another host was lost during training" in errors
    assert list(tmp_path.iterdir()) == []
