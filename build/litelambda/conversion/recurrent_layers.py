"""Recurrent layers without their loops, which the TFLite converter refuses or crashes on.

Unrolled, the steps become operators one after the other, which convert to int8. The operators grow with the number of
steps, and the time to convert with its square, so long sequences keep their loop.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from litelambda.common.errors import ConversionError
from litelambda.conversion.rewrites import Rewrite
from litelambda.keras_tools.backend import load_keras

MAX_STEPS = 256


def unrolled(layer: Any) -> Rewrite | None:
    """How a recurrent layer computes without its loop, over at most `MAX_STEPS` steps; None for other layers.

    Raises:
        ConversionError: the layer keeps its state from one request to the next.
    """
    if not isinstance(layer, load_keras().layers.RNN):
        return None
    if layer.stateful:
        raise ConversionError(
            f"layer {layer.name!r} is stateful: what a request gets would depend on those before it; "
            "make it with stateful=False"
        )
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
    """Zeros at masked steps. Keras's own, unrolled, are at the wrong ones where a layer goes backwards."""
    ops = load_keras().ops
    if layer.go_backwards:
        flags = ops.flip(flags, 1)

    def zero(values: Any, kept: Any) -> Any:
        kept = ops.reshape(kept, (-1, *kept.shape[1:], *[1] * (len(values.shape) - len(kept.shape))))
        return ops.where(kept, values, ops.zeros_like(values))

    return zero(last, flags[:, -1]), zero(outputs, flags if layer.return_sequences else flags[:, -1:])
