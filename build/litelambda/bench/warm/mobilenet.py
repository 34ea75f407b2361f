"""MobileNetV2 for pictures of 224 by 224, in int8 with uint8 pixels, as a model of a realistic size to benchmark with.

Its weights are random: they take as long to multiply as trained ones. The toolchain's own stages build it on first
use, a minute, and kept in a store of its own, `.bench/models`.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

from litelambda.bench.peers import CACHE

NAME = "mobilenet_v2"
_SIDE = 224
_CALIBRATION_ROWS = 8
_VERIFIED_ROWS = 8


def mobilenet_store() -> str:
    """The URL of a store that has the model `mobilenet_v2`, made if need be."""
    root = CACHE / "models"
    if not (root / NAME / "aliases.json").is_file():
        root.mkdir(parents=True, exist_ok=True)
        if sys.stderr.isatty():
            print("making a MobileNetV2 to measure, once: about a minute", file=sys.stderr)
        _publish(root.as_uri())
    return root.as_uri()


def _publish(store_url: str) -> None:
    # TensorFlow takes seconds to import: only who makes the model waits for it.
    from litelambda.conversion.quantize import quantize
    from litelambda.evaluation.verify import verify
    from litelambda.publishing.publish import Description, publish
    from litelambda.recipe.sections import Quantize
    from litelambda.store.artifact_store import Store
    from litelambda_serving.artifact import ARTIFACT_NAME

    model = _model()
    noise = np.random.default_rng(0)
    pixels = noise.integers(0, 256, (_CALIBRATION_ROWS, _SIDE, _SIDE, 3), np.uint8)
    rows = {model.inputs[0].name: pixels.astype(np.float32) / np.float32(127.5) - np.float32(1)}
    quantized = quantize(model, rows, Quantize(io="uint8"))
    (tensor,) = quantized.signature.inputs
    verified = verify(quantized.artifact, {tensor.name: pixels[:_VERIFIED_ROWS]})
    description = Description(
        signature=verified.signature,
        batching=verified.batching,
        quantization={"scheme": quantized.scheme, "io": quantized.io, "float_ops": quantized.float_operators},
        labels=None,
        preprocessing={},
        metrics={},
        size_bytes={"float": len(quantized.float_artifact), "quantized": len(quantized.artifact)},
        recipe={},
    )
    store = Store(store_url)
    publish(store, NAME, ["latest"], {ARTIFACT_NAME: quantized.artifact}, description)


def _model() -> Any:
    from litelambda.keras_tools.backend import load_keras

    keras = load_keras()
    keras.utils.set_random_seed(0)
    image = keras.Input((_SIDE, _SIDE, 3), name="image")
    return keras.Model(image, keras.applications.MobileNetV2(weights=None, input_tensor=image).output, name=NAME)
