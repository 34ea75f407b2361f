"""Imported models of odd signatures, as served: what verification puts into the manifest, and what HTTP makes of it."""

from __future__ import annotations

import json

import numpy as np
import pytest

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
