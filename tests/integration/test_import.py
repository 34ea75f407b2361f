"""`litelambda import`: models made elsewhere become versions that the handler serves."""

from __future__ import annotations

import json
import tarfile
import zipfile
from hashlib import sha256

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from litelambda.cli.main import main
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from support.damaged_zips import DAMAGES, damaged_zip
from support.golden_store import GOLDEN, golden
from support.handler_client import load_module, send

ROWS = [[0.1, 0.2, 0.3, 0.4], [0.9, 0.8, 0.7, 0.6]]


def without_signatures(data, *, one_row=False):
    """A flatbuffer as older converters and other tools write it."""
    model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(bytearray(data), 0))
    model.signatureDefs = None
    for graph in model.subgraphs if one_row else ():
        for tensor in graph.tensors:
            tensor.shapeSignature = None
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), b"TFL3")
    return bytes(builder.Output())


def run(capsys, store, path, *options):
    """Import with --json; exit code and the document."""
    capsys.readouterr()
    code = main(["import", str(path), "--name", "m", "--store", store.as_uri(), "--json", *map(str, options)])
    output = capsys.readouterr()
    return code, json.loads(output.out) if code == 0 else output.err


def predict(store, rows=ROWS):
    answer = send(load_module(store, "m").handler, "POST", "/v1/models/m:predict", {"instances": rows})
    assert answer.status == 200, answer.body
    return answer.json()["predictions"]


def read_manifest(store, version=1):
    return json.loads((store / f"m/{version}/manifest.json").read_text())


def test_a_tflite_file_is_published_as_it_is(tmp_path, capsys):
    """Its bytes, signatures and batching, verified, with labels; the document has the promised keys."""
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nfox\n")
    code, document = run(capsys, tmp_path / "store", GOLDEN / "tiny_int8.tflite", "--labels", labels)
    assert code == 0
    assert {"model", "version", "url", "digest", "metrics", "size_bytes", "published"} <= document.keys()
    assert {"float", "quantized", "stored"} <= document["size_bytes"].keys()
    manifest = read_manifest(tmp_path / "store")
    assert (manifest["labels"], manifest["batching"]["dynamic"]) == (["cat", "dog", "fox"], True)
    answer = send(load_module(tmp_path / "store", "m").handler, "POST", "/v1/models/m:classify",
                  {"examples": [{"x": ROWS[0]}]})  # fmt: skip
    assert [label for label, _ in answer.json()["results"][0]] == ["cat", "dog", "fox"]
    assert run(capsys, tmp_path / "store", GOLDEN / "tiny_int8.tflite")[1]["version"] == 2


@pytest.mark.parametrize("one_row", [False, True])
def test_a_tflite_file_without_signatures(tmp_path, capsys, one_row):
    """The runtime's own name stands for the missing one; a model of exactly one row takes any number of them."""
    path = tmp_path / "third-party.tflite"
    path.write_bytes(without_signatures(golden("tiny_int8"), one_row=one_row))
    assert run(capsys, tmp_path / "store", path)[0] == 0
    manifest = read_manifest(tmp_path / "store")
    assert manifest["batching"]["dynamic"] is not one_row
    assert run(capsys, tmp_path / "reference", GOLDEN / "tiny_int8.tflite")[0] == 0
    assert predict(tmp_path / "store", ROWS * 10) == predict(tmp_path / "reference", ROWS * 10)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_a_keras_file_with_representative_rows_becomes_int8(tmp_path, capsys, tiny_model, suffix):
    """It is quantized, held against the float model, and published with the file it came from."""
    path, rows = tmp_path / f"model{suffix}", tmp_path / "rows.npy"
    tiny_model.save(path)
    values = np.random.default_rng(0).random((64, 4), dtype=np.float32)
    np.save(rows, values)
    code, document = run(capsys, tmp_path / "store", path, "--representative", rows)
    assert code == 0, document
    assert document["metrics"]["max_abs_difference"] < 0.05
    manifest = read_manifest(tmp_path / "store")
    assert (manifest["quantization"]["scheme"], manifest["quantization"]["float_ops"]) == ("int8", [])
    assert f"model{suffix}" in manifest["files"]
    expected = tiny_model.predict(values[:5], verbose=0)
    assert np.allclose(predict(tmp_path / "store", values[:5].tolist()), expected, atol=0.05)


@pytest.mark.slow
def test_a_saved_model(tmp_path, capsys):
    """A SavedModel's serving_default keeps its names, also from an archive; one .npz calibrates several inputs."""
    tf = load_tensorflow()
    module = tf.Module()
    module.weights = tf.Variable(np.eye(3, dtype=np.float32))
    specs = [tf.TensorSpec([None, 3], tf.float32, name="left"), tf.TensorSpec([None, 3], tf.float32, name="right")]
    module.serve = tf.function(
        lambda left, right: {"sum": left @ module.weights + right, "difference": left - right}, input_signature=specs
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
    assert run(capsys, tmp_path / "store", tmp_path / "saved")[0] == 0
    rows = [{"left": [1.0, 2.0, 3.0], "right": [1.0, 1.0, 1.0]}]
    assert predict(tmp_path / "store", rows) == [{"sum": [2.0, 3.0, 4.0], "difference": [0.0, 1.0, 2.0]}]
    noise = np.random.default_rng(0)
    np.savez(tmp_path / "rows.npz", right=noise.random((32, 3)), left=noise.random((32, 3)))
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "saved", "export/Servo/1")
    archive = tmp_path / "model.tar.gz"
    code, document = run(capsys, tmp_path / "store", archive, "--representative", tmp_path / "rows.npz")
    assert (code, document["version"]) == (0, 2)
    manifest = read_manifest(tmp_path / "store", 2)
    source = {"file": archive.name, "model": "export/Servo/1", "sha256": sha256(archive.read_bytes()).hexdigest()}
    assert (manifest["quantization"]["scheme"], manifest["recipe"]["imported"]) == ("int8", source)


@pytest.mark.parametrize(
    ("name", "row", "expected"),
    [
        ("labelled", [0.0, 0.0, 0.0, 0.0], "cat"),
        ("growing", ["a"], ["a"] * 1000),
        ("lookup", {"word": "blue", "step": 10}, 13),
    ],
)
def test_strings_are_verified_and_served(tmp_path, capsys, name, row, expected):
    """A model with string inputs or outputs is held against the reference, and served as it was verified."""
    code, document = run(capsys, tmp_path / "store", GOLDEN / f"{name}.tflite")
    assert code == 0
    assert document["batching"]["dynamic"] is True
    (found,) = predict(tmp_path / "store", [row])
    assert (found["label"] if name == "labelled" else found) == expected


@pytest.mark.slow
def test_a_saved_model_with_a_table_of_strings(tmp_path, capsys):
    """A lookup table of TensorFlow's becomes part of the artifact; rows to calibrate with must be numbers."""
    tf = load_tensorflow()
    module = tf.Module()
    entries = tf.lookup.KeyValueTensorInitializer(["red", "blue"], tf.constant([1, 2], tf.int64))
    module.table = tf.lookup.StaticHashTable(entries, -1)
    module.serve = tf.function(
        lambda word: {"id": tf.reshape(module.table.lookup(word), [-1])},
        input_signature=[tf.TensorSpec([None], tf.string, name="word")],
    )
    tf.saved_model.save(module, str(tmp_path / "saved"), signatures={"serving_default": module.serve})
    assert run(capsys, tmp_path / "store", tmp_path / "saved")[0] == 0
    assert predict(tmp_path / "store", ["blue", "red", "nope"]) == [2, 1, -1]
    np.save(tmp_path / "rows.npy", np.array(["red", "blue"]))
    code, message = run(capsys, tmp_path / "store", tmp_path / "saved", "--representative", tmp_path / "rows.npy")
    assert (code, "import a model with string inputs without --representative" in message) == (1, True)


@pytest.mark.slow
def test_representative_rows_that_do_not_fit(tmp_path, capsys):
    """Rows of another shape are refused before anything is converted."""
    keras = load_keras()
    path, rows = tmp_path / "model.keras", tmp_path / "rows.npy"
    keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(1)]).save(path)
    np.save(rows, np.zeros((8, 5)))
    code, message = run(capsys, tmp_path / "store", path, "--representative", rows)
    assert code == 1
    assert "has shape [8, 5], expected rows of [4]" in message
    assert not (tmp_path / "store").exists()


@pytest.mark.parametrize(
    ("name", "content", "options", "code", "message"),
    [
        ("none.tflite", None, [], 2, "does not exist"),
        ("model.onnx", b"x", [], 2, "expected a .tflite, .keras or .h5 file"),
        ("model.tflite", b"x" * 100, [], 1, "lacks the identifier TFL3"),
        ("model.tflite", golden("tiny_int8"), ["--representative", "rows.npy"], 2, "converted already"),
        (
            "model.tflite",
            golden("tiny_int8"),
            ["--labels", "two.json"],
            1,
            "has 2 labels, but the model's outputs have [3]",
        ),
        ("model.tflite", golden("unsupported_op"), [], 1, "cannot run the model"),
        ("model.tflite", golden("tiny_int8")[:400], [], 1, "damaged or cut short"),
        ("model.keras", b"x", [], 1, "It is damaged, cut short"),
        ("model.h5", b"x", [], 1, "It is damaged, cut short"),
    ],
)
def test_what_cannot_be_imported(tmp_path, capsys, name, content, options, code, message):
    """Each mistake has its exit code and a message, and nothing is published."""
    (tmp_path / "two.json").write_text('["a", "b"]')
    if content is not None:
        (tmp_path / name).write_bytes(content)
    actual, text = run(
        capsys,
        tmp_path / "store",
        tmp_path / name,
        *(tmp_path / option if "." in option else option for option in options),
    )
    assert (actual, message in text) == (code, True), text
    assert not list((tmp_path / "store").glob("m/*/manifest.json"))


@pytest.mark.parametrize("message", DAMAGES)
def test_a_keras_file_that_is_damaged(tmp_path, capsys, message):
    """The error names the file, what Python says, and not its layers, which nothing is wrong with."""
    keras = load_keras()
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]).save(path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path.write_bytes(damaged_zip(message, members))
    code, text = run(capsys, tmp_path / "store", path)
    assert code == 1
    assert f"Keras cannot load {path}: " in text
    assert "It is damaged, cut short or behind a password" in text
    assert "Lambda" not in text
    assert not (tmp_path / "store").exists()


def test_a_name_that_is_none(tmp_path, capsys):
    """A model's name never leaves its folder."""
    assert main(["import", "x.tflite", "--name", "../m", "--store", tmp_path.as_uri()]) == 2
    assert "invalid model name" in capsys.readouterr().err
