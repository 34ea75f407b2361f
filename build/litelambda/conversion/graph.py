"""What a Keras model is made of: its layers and the nodes between them, those of models inside it included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from litelambda.keras_tools.backend import load_keras


def layer_names(model: Any) -> tuple[str, ...]:
    """The names of the layers that the model was written with, not of those inside them."""
    return tuple(layer.name for layer in layers_of(model))


def layers_of(model: Any) -> Iterator[Any]:
    """The layers that a model was written with, each once; of a model inside it those of that."""
    keras = load_keras()
    seen: set[int] = set()
    waiting = list(reversed(model.layers))
    while waiting:
        layer = waiting.pop()
        if id(layer) in seen:
            continue
        seen.add(id(layer))
        if isinstance(layer, keras.Model) and hasattr(layer, "inputs"):
            waiting += reversed(layer.layers)
        else:
            yield layer


def call(model: Any, tensors: Sequence[Any]) -> list[Any]:
    """What a model makes of its inputs, in their order: its outputs as one flat list."""
    keras = load_keras()
    given = keras.tree.pack_sequence_as(model._inputs_struct, tensors) if hasattr(model, "_inputs_struct") else None
    if given is None:
        given = tensors[0] if len(tensors) == 1 else list(tensors)
    outputs: list[Any] = keras.tree.flatten(model(given, training=False))
    return outputs
