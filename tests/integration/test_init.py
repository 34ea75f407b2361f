"""From `litelambda init` to a right answer: the commands that a new user types, in the folder that it wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda.recipe.load import load_any_recipe
from support.golden_store import GOLDEN

pytestmark = pytest.mark.slow


def run_tests(folder: Path) -> str:
    """What the project's own tests print."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(folder), str(folder)]
    done = subprocess.run(command, cwd=folder, env=os.environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_table_becomes_a_service_that_answers_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three classes that lie far apart: init, build, predict, and the project's test over HTTP, without an argument."""
    monkeypatch.chdir(tmp_path)
    noise = np.random.default_rng(0)
    names = ["cold", "mild", "hot"]
    lines = [
        f"{place * 20 + noise.normal():.2f};{-place * 7 + noise.normal():.2f};{names[place]}".replace(".", ",")
        for place in noise.integers(0, 3, 240)
    ]
    Path("days.csv").write_text("\n".join(["temperature;pressure;day", *lines]) + "\n")
    assert main(["init", "--data", "days.csv"]) == 0
    assert main(["build", "--set", "train.epochs=4"]) == 0
    capsys.readouterr()
    Path("row.json").write_text(json.dumps({"temperature": 40, "pressure": -14}))
    assert main(["predict", "days", "--input", "row.json", "--top-k", "1"]) == 0
    ((best,),) = json.loads(capsys.readouterr().out)["predictions"]
    assert best["label"] == "hot"
    assert best["score"] > 0.5
    assert "2 passed" in run_tests(tmp_path)


def test_a_model_becomes_a_service_that_answers_as_it_does(tmp_path: Path) -> None:
    """TensorFlow Serving's own example: a project that imports is built by the same command, and its test passes."""
    folder = tmp_path / "half"
    assert main(["init", str(folder), "--model", str(GOLDEN / "half_plus_two.tflite")]) == 0
    recipe, store = folder / "recipe.toml", folder / "models"
    assert main(["build", str(recipe), "--store", str(store)]) == 0
    assert "2 passed" in run_tests(folder)


def test_a_keras_model_of_two_inputs(tmp_path: Path) -> None:
    """A recurrent network over a sequence and a number: the test's rows are the given ones, its answers Keras' own."""
    keras.utils.set_random_seed(0)
    sequence, number = keras.Input((5, 2), name="sequence"), keras.Input((1,), name="number")
    joined = keras.layers.Concatenate()([keras.layers.GRU(3)(sequence), number])
    model = keras.Model([sequence, number], keras.layers.Dense(2, name="answer")(joined))
    model.save(tmp_path / "gru.keras")
    noise = np.random.default_rng(0)
    rows = {name: noise.random((20, *shape), np.float32) for name, shape in (("sequence", (5, 2)), ("number", (1,)))}
    np.savez(tmp_path / "rows.npz", **rows)
    folder = tmp_path / "project"
    arguments = ["--model", str(tmp_path / "gru.keras"), "--representative", str(tmp_path / "rows.npz")]
    assert main(["init", str(folder), *arguments]) == 0
    recipe, _ = load_any_recipe(folder / "recipe.toml")
    assert recipe.to_json()["source"].items() >= {"path": "model/gru.keras", "representative": "model/rows.npz"}.items()
    instances = json.loads((folder / "tests" / "rows.json").read_text())["instances"]
    np.testing.assert_allclose([each["sequence"] for each in instances], rows["sequence"][:8], rtol=1e-6)
    expected = json.loads((folder / "tests" / "expected.json").read_text())
    own = model.predict([rows["sequence"][:8], rows["number"][:8]], verbose=0)
    np.testing.assert_allclose(expected, own, rtol=1e-4, atol=1e-6)
