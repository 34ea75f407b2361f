"""The graph of a Keras model: its layers, those of nested models included, what follows what, and a call by inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from litelambda.keras_tools.backend import load_keras


def layer_names(model: Any) -> tuple[str, ...]:
    """The names of the layers that the model was written with, not of layers inside them."""
    return tuple(layer.name for layer in layers_of(model))


def layers_of(model: Any) -> Iterator[Any]:
    """The layers that a model was written with, each once; for a nested model its layers."""
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
    """Call a model with its inputs in order; its outputs as one flat list."""
    keras = load_keras()
    given = keras.tree.pack_sequence_as(model._inputs_struct, tensors) if hasattr(model, "_inputs_struct") else None
    if given is None:
        given = tensors[0] if len(tensors) == 1 else list(tensors)
    outputs: list[Any] = keras.tree.flatten(model(given, training=False))
    return outputs


def followers(model: Any, layer: Any) -> list[Any]:
    """The layers of a model that read a layer's output directly.

    Empty for a layer that is used more than once, or whose output is one of the model's.
    """
    keras = load_keras()
    if isinstance(model, keras.Sequential):
        index = next((at for at, each in enumerate(model.layers) if each is layer), None)
        return model.layers[index + 1 : index + 2] if index is not None else []
    own = {id(each) for each in model.layers}
    outputs = {id(tensor) for tensor in model.outputs}
    if id(layer) not in own or id(layer.output) in outputs or len(layer._inbound_nodes) != 1:
        return []
    return [node.operation for node in layer._outbound_nodes if id(node.operation) in own]


def only_follower(model: Any, layer: Any) -> Any:
    """The only layer that reads a layer's output; None where there are none or several."""
    after = followers(model, layer)
    return after[0] if len(after) == 1 else None


@contextmanager
def overridden(owner: Any, method: str, function: Callable[..., Any]) -> Iterator[None]:
    """Override a method of one object for a block; the override gets the original method as its first argument.

    It is written into `vars(owner)`, because Keras tracks what is set on a layer.
    """
    own = vars(owner)
    before = own.get(method)
    own[method] = partial(function, getattr(owner, method))
    try:
        yield
    finally:
        if before is None:
            del own[method]
        else:
            own[method] = before
