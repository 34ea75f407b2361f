"""Who consumes what a layer makes, in a Sequential or Functional model."""

from __future__ import annotations

from typing import Any

from litelambda.keras_tools.backend import load_keras


def followers(model: Any, layer: Any) -> list[Any]:
    """The layers of a model that take a layer's output directly; none for its outputs.

    A layer that is used more than once, or whose output leaves the model as well, is treated as if nothing followed.
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
    """The one layer that takes a layer's output; None where there are none or several."""
    after = followers(model, layer)
    return after[0] if len(after) == 1 else None
