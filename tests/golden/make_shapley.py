"""Make the models and the references for Shapley values: `python tests/golden/make_shapley.py`, with `shap` installed.

A Keras model of 14 features, in float32 and int8, and what SHAP's exact explainer says of Keras' own `predict` for some
rows. They are committed, so that the tests need neither Keras nor SHAP.
"""

from __future__ import annotations

import importlib.metadata
import json

import keras
import numpy as np
import shap
import tensorflow as tf
from make_models import FOLDER, convert

NUM_FEATURES, NUM_ROWS = 14, 6


def main():
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.layers.Input([NUM_FEATURES], name="x"),
            keras.layers.Dense(16, "relu", kernel_initializer="glorot_normal", bias_initializer="normal"),
            keras.layers.Dense(8, "tanh"),
            keras.layers.Dense(3, "softmax", kernel_initializer=keras.initializers.RandomNormal(stddev=1.5)),
        ]
    )
    rows = np.random.default_rng(4).normal(0, 1, (200, NUM_FEATURES)).astype("float32")
    spec = tf.TensorSpec([None, NUM_FEATURES], tf.float32, name="x")
    a, b, c, d, e, f = map(tf.constant, model.get_weights())
    classify = lambda x: {"probabilities": tf.nn.softmax(tf.tanh(tf.nn.relu(x @ a + b) @ c + d) @ e + f)}  # noqa: E731
    convert("shapley", classify, [spec])
    convert("shapley_int8", classify, [spec], calibration=rows)
    baseline = rows.mean(axis=0)
    masker = shap.maskers.Independent(baseline[None], max_samples=1)
    explained = shap.explainers.Exact(lambda x: model.predict(x, verbose=0, batch_size=4096), masker)(rows[:NUM_ROWS])
    document = {
        "shap": importlib.metadata.version("shap"),
        "baseline": baseline.tolist(),
        "rows": rows[:NUM_ROWS].tolist(),
        "outputs": model.predict(rows[:NUM_ROWS], verbose=0).tolist(),
        "baseline_outputs": model.predict(baseline[None], verbose=0)[0].tolist(),
        "values": explained.values.round(7).tolist(),  # (rows, features, classes)
    }
    (FOLDER / "shapley.json").write_text(json.dumps(document) + "\n")


if __name__ == "__main__":
    main()
