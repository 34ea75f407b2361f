"""Names of a model's outputs: those of the layers that make them, or the keys that they are returned under.

TFLite's converter takes any name in a signature, but TensorFlow only letters, digits and a few signs; and of outputs
that share a tensor it keeps one. So a model is converted under other names and
numbers of its own: see `litelambda.conversion.signature_tensors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from litelambda.keras_tools.backend import load_keras


def output_names(model: Any) -> list[str]:
    """Name a model's outputs, each differently, in the order in which `keras.tree` flattens them.

    An output under a key is named after the key, or after nested keys joined by "_"; others are named after the layer
    that makes them. The second output of a name is `name_1`.
    """
    tree = load_keras().tree
    structure = getattr(model, "output", None) if hasattr(model, "_outputs_struct") else None
    tensors = list(model.outputs)
    paths = [path for path, _ in tree.flatten_with_path(structure)] if structure is not None else []
    if len(paths) != len(tensors):
        paths = [()] * len(tensors)
    return _distinct(_name(path, tensor) for path, tensor in zip(paths, tensors, strict=True))


def _name(path: tuple[Any, ...], tensor: Any) -> str:
    keys = [str(part) for part in path if isinstance(part, str)]
    if keys:
        return "_".join([*keys, *(str(part) for part in path[1:] if not isinstance(part, str))])
    name: str = tensor._keras_history.operation.name
    return name


def _distinct(names: Iterable[str]) -> list[str]:
    wanted = list(names)
    given: list[str] = []
    for name in wanted:
        number, candidate = 0, name
        while candidate in given or (number and candidate in wanted):
            number += 1
            candidate = f"{name}_{number}"
        given.append(candidate)
    return given
