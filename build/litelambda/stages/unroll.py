"""Recurrent layers without their loops, which the TFLite converter refuses or crashes on.

Unrolled, the steps become operators one after the other, which convert to int8. The operators grow with the number of
steps, and the time to convert with its square, so long sequences keep their loop.
"""

from __future__ import annotations

from typing import Any

from litelambda.errors import ConversionError
from litelambda.stages.backend import load_keras

MAX_STEPS = 256


def unrolled(layer: Any) -> Any:
    """Copy a layer without its weights; recurrent ones over at most `MAX_STEPS` steps without their loop.

    Raises:
        ConversionError: the layer keeps its state from one request to the next.
    """
    keras, config = load_keras(), layer.get_config()
    parts = layer._flatten_layers() if isinstance(layer, keras.Layer) else []  # keras.ops in the graph are no layers
    recurrent = [each for each in parts if isinstance(each, keras.layers.RNN)]
    if any(each.stateful for each in recurrent):
        raise ConversionError(
            f"layer {layer.name!r} is stateful: what a request gets would depend on those before it; "
            "make it with stateful=False"
        )
    if recurrent and all(0 < _num_steps(each) <= MAX_STEPS for each in recurrent):
        config = _with_unroll(config)
    return layer.__class__.from_config(config)


def _num_steps(layer: Any) -> int:
    """The number of steps that a recurrent layer was built for; 0 where that is open."""
    shape = (layer.get_build_config() or {}).get("input_shape")
    return (shape[1] or 0) if shape else 0


def _with_unroll(config: Any) -> Any:
    if isinstance(config, list | tuple):
        return type(config)(_with_unroll(each) for each in config)
    if not isinstance(config, dict):
        return config
    return {key: True if key == "unroll" else _with_unroll(value) for key, value in config.items()}
