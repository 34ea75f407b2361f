"""Recurrent layers, exported unrolled: the TFLite converter refuses their loops, or crashes on them.

Unrolled, each step is a few operators, which convert to int8. Masks keep their meaning: see `_without_masked`. The
number of operators grows with the number of steps, and the time to convert with its square, so long sequences keep
their loop.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from litelambda.common.errors import ConversionError
from litelambda.conversion.rewrites import Rewrite
from litelambda.keras_tools.backend import load_keras

MAX_STEPS = 256
"""Of a sequence that is unrolled: the time to convert grows with the square of the steps."""


def unrolled(layer: Any) -> Rewrite | None:
    """The rewrite of a recurrent layer without its loop, over at most `MAX_STEPS` steps; None without such steps.

    Raises:
        ConversionError: the layer keeps its state from one request to the next.
    """
    if not isinstance(layer, load_keras().layers.RNN):
        return None
    if layer.stateful:
        raise ConversionError(
            f"layer {layer.name!r} is stateful, so an answer would depend on earlier requests: "
            "make it with stateful=False"
        )
    steps = [node.input_tensors[0].shape[1] or 0 for node in layer._inbound_nodes]
    if steps and min(steps) > MAX_STEPS:
        return None  # it would prove that the layer answers as itself, for up to a minute
    return Rewrite("unrolled", layer, "inner_loop", partial(_unroll, layer), needed=True)


def _unroll(layer: Any, original: Any, sequences: Any, initial_state: Any, mask: Any, **settings: Any) -> Any:
    if not 0 < (sequences.shape[1] or 0) <= MAX_STEPS:
        return original(sequences, initial_state, mask, **settings)
    before = layer.unroll, layer.zero_output_for_mask
    layer.unroll, layer.zero_output_for_mask = True, False
    try:
        last, outputs, states = original(sequences, initial_state, mask, **settings)
    finally:
        layer.unroll, layer.zero_output_for_mask = before
    flags = load_keras().tree.flatten(mask)[0] if mask is not None else None
    if flags is not None and layer.zero_output_for_mask:
        last, outputs = _without_masked(layer, flags, last, outputs)
    return last, outputs, states


def _without_masked(layer: Any, flags: Any, last: Any, outputs: Any) -> tuple[Any, Any]:
    """Outputs with zeros at masked steps; unrolled and backwards, Keras puts its zeros at the wrong steps."""
    ops = load_keras().ops
    if layer.go_backwards:
        flags = ops.flip(flags, 1)

    def zero(values: Any, kept: Any) -> Any:
        kept = ops.reshape(kept, (-1, *kept.shape[1:], *[1] * (len(values.shape) - len(kept.shape))))
        return ops.where(kept, values, ops.zeros_like(values))

    return zero(last, flags[:, -1]), zero(outputs, flags if layer.return_sequences else flags[:, -1:])
