"""Integrated gradients over HTTP: those of the Keras model that was built, fetched with the first explanation."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from litelambda.cli.main import main
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from litelambda_serving.servable import size_in_memory
from support.handler_client import load_module, send

ROWS = [[12, 250, 31, 90], [255, 3, 40, 128], [99, 100, 230, 7]]
EXPLAIN, PREDICT = "/v1/models/tiny:explain", "/v1/models/tiny:predict"


@pytest.fixture(scope="module")
def store(built_artifact, tmp_path_factory):
    """A copy of the built version's store."""
    root = tmp_path_factory.mktemp("explained") / "store"
    shutil.copytree(built_artifact.folder.parents[1], root)
    return root


@pytest.fixture(scope="module")
def module(store):
    return load_module(store, "tiny")


def ask(module, body, path=EXPLAIN):
    return send(module.handler, "POST", path, body)


def expected(folder, row, target):
    """TensorFlow's own gradients of the published .keras file, from the mean training row on."""
    tf, keras = load_tensorflow(), load_keras()
    model = keras.models.load_model(folder / "model.keras", compile=False)
    manifest = json.loads((folder / "manifest.json").read_bytes())
    start = np.array(manifest["explain"]["baseline"]["features"])
    end = np.array(row) / 255
    places, shares = np.polynomial.legendre.leggauss(400)
    path = tf.constant(start + (places[:, None] + 1) / 2 * (end - start), "float32")
    with tf.GradientTape() as tape:
        tape.watch(path)
        output = model(path)[:, target]
    return (tape.gradient(output, path).numpy() * (shares[:, None] / 2)).sum(0) * (end - start)


def test_attributions_are_the_keras_models(module, built_artifact):
    """By default a model with gradients answers with them; they point where TensorFlow's do, and are complete."""
    answer = ask(module, {"instances": ROWS})
    assert answer.status == 200, answer.json()
    for row, prediction, found in zip(ROWS, answer.json()["predictions"], answer.json()["explanations"], strict=True):
        assert (found["method"], found["baseline"]) == ("integrated_gradients", "mean")
        assert found["target"] == int(np.argmax(prediction))
        attributions = np.array(found["attributions"]["features"])
        reference = expected(built_artifact.folder, row, found["target"])
        assert attributions @ reference >= 0.999 * np.linalg.norm(attributions) * np.linalg.norm(reference)
        difference = found["output"] - found["baseline_output"]
        assert attributions.sum() == pytest.approx(difference, rel=0.011)
        assert found["completeness_error"] <= 0.01
        assert found["output"] == pytest.approx(prediction[found["target"]], abs=0.05)


def test_v2_and_the_names_of_vertex(module):
    """The same attributions below `/v2`, and under Vertex AI's names."""
    ours = ask(module, {"instances": ROWS[:1]}).json()["explanations"][0]
    vertex = ask(module, {"instances": ROWS[:1], "parameters": {"format": "vertex"}}).json()["explanations"][0]
    (attribution,) = vertex["attributions"]
    assert attribution["featureAttributions"] == ours["attributions"]
    assert attribution["instanceOutputValue"] == ours["output"]
    tensor = {"name": "features", "datatype": "FP32", "shape": [1, 4], "data": ROWS[0]}
    answer = ask(module, {"inputs": [tensor]}, "/v2/models/tiny/explain")
    assert json.loads(answer.json()["outputs"][-1]["data"][0])["attributions"] == ours["attributions"]


def test_a_path_is_halved_until_it_is_explained(store, module):
    """Where one run would leave too much, more are made, as far as the caller's number of runs allows."""
    explain = json.loads((store / "tiny/1/manifest.json").read_bytes())["explain"]
    points = explain["gradients"]["steps"] + 2
    far = {"instances": [[255, 0, 255, 0]], "parameters": {"baseline": {"instance": [0, 255, 0, 255]}}}
    found = ask(module, far).json()["explanations"][0]
    assert found["completeness_error"] <= 0.01
    assert (found["runs"] - 1) % points == 0
    far["parameters"] |= {"max_runs": 2}
    assert ask(module, far).json()["explanations"][0]["runs"] == 1 + points


def test_explanations_run_side_by_side(module):
    """Requests that explain at the same time get what they would have got alone."""
    bodies = [{"instances": [row], "parameters": {"target": target}} for row in ROWS for target in range(3)]
    alone = [ask(module, body).json() for body in bodies]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda body: ask(module, body).json(), bodies * 4)) == alone * 4


def test_nothing_is_fetched_before_the_first_explanation(store):
    """INIT and predictions open neither the file nor a module of it; then it counts as memory of its model."""
    code = (
        "import json, sys; sys.path[:0] = ['tests', 'functions']\n"
        "from pathlib import Path\n"
        "from support.handler_client import load_module, send\n"
        f"module = load_module(Path({str(store)!r}), 'tiny')\n"
        "loaded = lambda: [n for n in sys.modules if '.explain' in n or n.endswith(('companion', 'companions'))]\n"
        "memory = lambda: module._repository.loaded()[0].memory_bytes\n"
        f"ask = lambda path: send(module.handler, 'POST', path, {{'instances': {ROWS[:1]}}})\n"
        f"ask({PREDICT!r}); before = loaded(), memory()\n"
        f"ask({EXPLAIN!r}); ask({EXPLAIN!r})\n"
        "print('FOUND', json.dumps([*before, bool(loaded()), memory()]))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    line = next(each for each in done.stdout.splitlines() if each.startswith("FOUND"))
    modules, before, is_loaded, after = json.loads(line.removeprefix("FOUND"))
    assert (modules, is_loaded) == ([], True)
    assert after - before == size_in_memory((store / "tiny/1/explain.tflite").stat().st_size)


@pytest.mark.parametrize("kind", ["changed", "gone"])
def test_a_file_that_is_not_what_was_pinned_fails_explanations_alone(store, tmp_path, kind, capsys):
    """Gradients that were changed or lost are refused and recorded, unseen by the runtime; predictions go on."""
    root = shutil.copytree(store, tmp_path / "store")
    file = root / "tiny/1/explain.tflite"
    module = load_module(root, "tiny")
    if kind == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-1] + b"?")
    answer = ask(module, {"instances": ROWS})
    assert answer.status == 500, answer.json()
    (record,) = [
        json.loads(line)["audit"] for line in capsys.readouterr().out.splitlines() if line.startswith('{"audit"')
    ]
    assert (record["action"], record["outcome"], record["model"], record["version"]) == ("load", "refused", "tiny", 1)
    assert record["reason"].startswith("DigestError" if kind == "changed" else "ArtifactError")
    assert ask(module, {"instances": ROWS}, PREDICT).status == 200
    assert ask(module, {"instances": ROWS, "parameters": {"method": "shapley"}}).status == 200


def test_a_version_without_gradients_says_why(store, tmp_path):
    """Asked for gradients it answers 501 with the build's reason; asked for nothing, another method explains."""
    root = shutil.copytree(store, tmp_path / "store")
    path = root / "tiny/1/manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["explain"] = {"note": "the model counts words"}
    path.write_text(json.dumps(manifest))
    (root / "tiny/aliases.json").unlink()
    module = load_module(root, "", MODEL_NAME="")
    address = "/v1/models/tiny/versions/1:explain"
    answer = ask(module, {"instances": ROWS, "parameters": {"method": "integrated_gradients"}}, address)
    assert answer.status == 501
    assert "version 1 of tiny has no gradients: the model counts words" in answer.json()["error"]
    assert ask(module, {"instances": ROWS}, address).json()["explanations"][0]["method"] == "shapley"


def test_an_import_exports_and_encrypts_them(store, tmp_path):
    """An import publishes the gradients of a Keras model encrypted as the model is, and they are served so."""
    key, target = tmp_path / "our.key", tmp_path / "s"
    assert main(["keygen", str(key), "--encryption"]) == 0
    source = str(store / "tiny/1/model.keras")
    command = ["import", source, "--name", "m", "--store", str(target), "--explain", "--encrypt", str(key)]
    assert main(command) == 0
    assert b"TFL3" not in (target / "m/1/explain.tflite").read_bytes()[:16]
    module = load_module(target, "m", MODEL_DECRYPTION_KEY=str(key))
    found = ask(module, {"instances": [[0.1, 0.9, 0.2, 0.4]]}, "/v1/models/m:explain").json()["explanations"][0]
    assert (found["method"], found["baseline"]) == ("integrated_gradients", "zeros")
    assert found["completeness_error"] <= 0.01
