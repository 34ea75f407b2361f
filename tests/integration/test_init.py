"""From `litelambda init` to a right answer: the commands that a new user types, in the folder that it wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import keras
import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda.recipe.load import load_any_recipe
from support.golden_store import GOLDEN

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of a table, built in its folder without an argument: three classes that lie far apart."""
    folder = tmp_path_factory.mktemp("days")
    noise, names = np.random.default_rng(0), ["cold", "mild", "hot"]
    lines = [
        f"{place * 20 + noise.normal():.2f};{-place * 7 + noise.normal():.2f};{names[place]}".replace(".", ",")
        for place in noise.integers(0, 3, 240)
    ]
    (folder / "days.csv").write_text("\n".join(["temperature;pressure;day", *lines]) + "\n")
    with pytest.MonkeyPatch.context() as patched:
        patched.chdir(folder)
        assert main(["init", "--data", "days.csv"]) == 0
        assert main(["build", "--set", "train.epochs=4"]) == 0
    return folder


def test_a_table_becomes_a_model_that_answers_right(
    days: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A day of 40 degrees is hot."""
    monkeypatch.chdir(days)
    Path("row.json").write_text(json.dumps({"temperature": 40, "pressure": -14}))
    assert main(["predict", "days", "--input", "row.json", "--top-k", "1"]) == 0
    ((best,),) = json.loads(capsys.readouterr().out)["predictions"]
    assert best["label"] == "hot"
    assert best["score"] > 0.5


def test_the_tests_of_projects_pass(days: Path, tmp_path: Path) -> None:
    """Over HTTP: of the table, and of a project that imports TensorFlow Serving's own example from an archive."""
    half, archive = tmp_path / "half", tmp_path / "half.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(GOLDEN / "half_plus_two.tflite", "export/model.tflite")
    assert main(["init", str(half), "--model", str(archive)]) == 0
    assert (half / "model" / "half.tar.gz").read_bytes() == archive.read_bytes()
    assert main(["build", str(half / "recipe.toml"), "--accept-worse"]) == 2  # there is nothing that it accepts
    assert main(["build", str(half / "recipe.toml"), "--store", str(half / "models")]) == 0
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--import-mode=importlib", days, half]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout


def test_a_keras_model_of_two_inputs(tmp_path: Path) -> None:
    """In a folder of MLflow's: only the model is copied, the test's rows are the given ones, its answers Keras' own."""
    keras.utils.set_random_seed(0)
    sequence, number = keras.Input((5, 2), name="sequence"), keras.Input((1,), name="number")
    joined = keras.layers.Concatenate()([keras.layers.GRU(3)(sequence), number])
    model = keras.Model([sequence, number], keras.layers.Dense(2, name="answer")(joined))
    (tmp_path / "gru" / "data").mkdir(parents=True)
    (tmp_path / "gru" / "MLmodel").write_text("flavors: {keras: {data: data}, python_function: {env: conda.yaml}}\n")
    (tmp_path / "gru" / "conda.yaml").touch()
    model.save(tmp_path / "gru" / "data" / "model.keras")
    noise = np.random.default_rng(0)
    rows = {name: noise.random((20, *shape), np.float32) for name, shape in (("sequence", (5, 2)), ("number", (1,)))}
    np.savez(tmp_path / "rows.npz", **rows)
    folder = tmp_path / "project"
    arguments = ["--model", str(tmp_path / "gru"), "--representative", str(tmp_path / "rows.npz")]
    assert main(["init", str(folder), *arguments]) == 0
    recipe, _ = load_any_recipe(folder / "recipe.toml")
    found = recipe.to_json()
    assert found["source"].items() >= {"path": "model/model.keras", "representative": "model/rows.npz"}.items()
    assert found["publish"]["name"] == "gru"
    assert {path.name for path in (folder / "model").iterdir()} == {"model.keras", "rows.npz"}
    instances = json.loads((folder / "tests" / "rows.json").read_text())["instances"]
    np.testing.assert_allclose([each["sequence"] for each in instances], rows["sequence"][:8], rtol=1e-6)
    expected = json.loads((folder / "tests" / "expected.json").read_text())
    own = model.predict([rows["sequence"][:8], rows["number"][:8]], verbose=0)
    np.testing.assert_allclose(expected, own, rtol=1e-4, atol=1e-6)
