"""Imported models of odd signatures, as served: what verification puts into the manifest, and what HTTP makes of it."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import numpy as np
import pytest
from PIL import Image

from litelambda.cli.main import main
from litelambda.keras_tools.backend import load_keras, load_tensorflow
from support.golden_store import GOLDEN
from support.handler_client import load_module, send


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Models as their authors saved them, and rows for them."""
    folder = tmp_path_factory.mktemp("sources")
    tf, keras = load_tensorflow(), load_keras()
    # TensorFlow Serving's half_plus_two for TensorFlow 2 has the shape [1], and is asked for three values at once.
    module = tf.Module()
    module.predict = tf.function(
        lambda x: {"y": 0.5 * x + 2.0}, input_signature=[tf.TensorSpec([1], tf.float32, name="x")]
    )
    tf.saved_model.save(module, str(folder / "half_plus_two"), signatures={"serving_default": module.predict})
    # The mean over the tokens that are not padding: of padding alone there is none.
    keras.utils.set_random_seed(1)
    ids = keras.Input((6,), dtype="int32", name="ids")
    mask = keras.ops.cast(keras.ops.not_equal(ids, 0), "float32")[..., None]
    tokens = keras.layers.Embedding(20, 4, name="embedding")(ids)
    mean = keras.ops.sum(tokens * mask, axis=1) / keras.ops.sum(mask, axis=1)
    keras.Model(ids, keras.layers.Dense(3, name="scores")(mean)).save(folder / "pooled.keras")
    np.save(folder / "pooled.npy", np.random.default_rng(0).integers(1, 20, (64, 6)).astype("int32"))
    return folder


def serve(tmp_path, path, *options):
    """Import a model; its manifest, and the handler that serves it."""
    store = tmp_path / "store"
    assert main(["import", str(path), "--name", "m", "--store", store.as_uri(), "--json", *map(str, options)]) == 0
    return json.loads((store / "m" / "1" / "manifest.json").read_text()), load_module(store, "m").handler


def ask(handler, instances):
    answer = send(handler, "POST", "/v1/models/m:predict", {"instances": instances})
    return answer.status, answer.json()


@pytest.mark.parametrize("name", ["half_plus_two", "one_row.tflite"])
def test_a_model_of_one_value_takes_three(sources, tmp_path, name):
    """The answer of TensorFlow Serving's own tutorial, whether the model came as a SavedModel or as a flatbuffer."""
    path = GOLDEN / name if name.endswith(".tflite") else sources / name
    manifest, handler = serve(tmp_path, path)
    assert manifest["signatures"]["predict"]["inputs"][0]["shape"] == [-1]
    assert ask(handler, [1.0, 2.0, 5.0]) == (200, {"predictions": [2.5, 3.0, 4.5]})


def test_a_mean_over_tokens_starts_on_a_row_that_has_some(sources, tmp_path):
    """The int8 model divides by zero on padding alone: the function starts all the same, and says whose fault it is."""
    manifest, handler = serve(
        tmp_path, sources / "pooled.keras", "--representative", sources / "pooled.npy", "--accept-loss"
    )
    assert manifest["warm_up"] == {"ids": 1}
    assert manifest["quantization"]["scheme"] == "int8"
    # Keras takes numbers below zero for rows counted from the table's end.
    assert manifest["signatures"]["predict"]["inputs"][0]["range"] == [-20, 19]
    rows = np.load(sources / "pooled.npy")[:9].tolist()
    status, answer = ask(handler, rows)
    expected = load_keras().models.load_model(sources / "pooled.keras").predict(np.array(rows), verbose=0)
    assert status == 200
    assert np.abs(np.array(answer["predictions"]) - expected).max() < 0.02
    assert ask(handler, [*rows, [0] * 6]) == (
        400,
        {"error": "input 'ids', row 9: an operator of the model refuses these values"},
    )
    assert ask(handler, [[1, 2, 20, 0, 0, 0]]) == (
        400,
        {"error": "input 'ids', row 0: 20 is outside the range [-20, 19]"},
    )


def test_a_model_that_is_not_quantized_takes_what_is_not_finite(tmp_path):
    """A float64 reshape is no int8 model: NaN goes in and comes out."""
    manifest, handler = serve(tmp_path, GOLDEN / "dtype_float64.tflite")
    assert manifest["quantization"]["scheme"] == "float32"
    values = np.array([[1.0, np.nan, np.inf]])
    headers = {"Content-Type": "application/octet-stream"}
    answer = send(handler, "POST", "/v1/models/m:predict", values.tobytes(), headers)
    assert answer.status == 200
    assert np.array_equal(np.array(answer.json()["outputs"], float).ravel(), values.ravel(), equal_nan=True)


def test_a_model_takes_pictures(tmp_path):
    """The middle of a file's pixels, scaled by hand, in Keras; the model comes in a .zip file, as browsers fetch it."""
    keras = load_keras()
    keras.utils.set_random_seed(2)
    model = keras.Sequential([keras.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(3)])
    model.save(tmp_path / "keras_model.h5")
    with zipfile.ZipFile(tmp_path / "converted_keras.zip", "w") as archive:
        archive.write(tmp_path / "keras_model.h5", "keras_model.h5")
        archive.writestr("labels.txt", "0 left\n1 right\n2 up\n")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 10, 3), np.uint8)
    picture = io.BytesIO()
    Image.fromarray(pixels).save(picture, "PNG")
    rules = json.dumps({"kind": "image", "fit": "crop", "scale": 1 / 127.5, "offset": -1})
    manifest, handler = serve(tmp_path, tmp_path / "converted_keras.zip", "--preprocessing", rules)
    assert manifest["recipe"]["imported"]["model"] == "keras_model.h5"
    status, answer = ask(handler, [{"b64": base64.b64encode(picture.getvalue()).decode()}])
    expected = model(pixels[None, :, 3:7].astype(np.float32) / 127.5 - 1)
    assert status == 200
    assert np.allclose(answer["predictions"], expected, atol=1e-5)


def test_a_model_takes_rows_of_a_table(tmp_path):
    """A scaled number, a missing one and a category, by name; the row is made by hand, and Keras answers to it."""
    keras = load_keras()
    model = keras.Sequential([keras.Input((4,), name="row"), keras.layers.Dense(2)])
    model.save(tmp_path / "model.keras")
    columns = [
        {"name": "mass", "type": "number", "scale": 0.001, "offset": -4.0, "missing": 4200},
        {"name": "island", "type": "category", "vocabulary": ["Biscoe", "Dream", "Torgersen"]},
    ]
    rules = tmp_path / "columns.json"
    rules.write_text(json.dumps({"kind": "table", "label": "species", "columns": columns}))
    _, handler = serve(tmp_path, tmp_path / "model.keras", "--preprocessing", rules)
    rows = [{"mass": 3750, "island": "Dream"}, {"mass": None, "island": "Biscoe", "species": "Adelie"}]
    status, answer = ask(handler, rows)
    expected = model(np.array([[-0.25, 0, 1, 0], [0.2, 1, 0, 0]], np.float32))
    assert status == 200
    assert np.allclose(answer["predictions"], expected, atol=1e-6)
    assert ask(handler, [{"mass": 3750, "island": "Dreem"}])[0] == 400
