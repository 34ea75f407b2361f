"""Copies of models: new layers with the state of the old ones, and a check that the copy answers as its original.

State is more than weights: a Normalization computes with the statistics that it was adapted to, a StringLookup with its
vocabulary. Keras's saving of layers includes them; `set_weights` does not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from litelambda.common.arrays import Arrays
from litelambda.common.errors import TrainError
from litelambda.keras_tools.backend import load_keras
from litelambda.keras_tools.graph import call, layers_of, overridden
from litelambda.keras_tools.made_rows import ULPS, answered, difference_ulps

Recorded = dict[str, list[Any]]


def copy_model(model: Any) -> Any:
    """The same model with its own weights.

    Raises:
        TrainError: a layer cannot be copied, or its copy answers differently.
    """
    pairs: list[tuple[Any, Any]] = []

    def clone(layer: Any) -> Any:
        pairs.append((layer, copy_layer(layer)))
        return pairs[-1][1]

    copy = load_keras().models.clone_model(model, clone_function=clone, recursive=True)
    for source, target in pairs:
        copy_state(source, target)
    check_same(model, copy, "copied")
    return copy


def copy_layer(layer: Any) -> Any:
    """A new layer, or node of the graph, with the same configuration; `copy_state` copies the rest.

    Raises:
        TrainError: its class cannot be made from its configuration.
    """
    keras = load_keras()
    if type(layer) is keras.layers.Lambda:  # Keras refuses to deserialize its function if that has no name
        arguments, policy = dict(layer.arguments), layer.dtype_policy
        shape = layer._output_shape
        return keras.layers.Lambda(layer.function, shape, layer.mask, arguments, name=layer.name, dtype=policy)
    try:
        return layer.__class__.from_config(layer.get_config())
    except (TypeError, ValueError, NotImplementedError) as error:
        raise TrainError(f"layer {layer.name!r} ({type(layer).__name__}) cannot be copied: {error}") from error


def copy_state(source: Any, target: Any) -> None:
    """Copy the state of a layer to another of its class: weights, and what the class saves besides them.

    Raises:
        TrainError: their state has different parts.
    """
    keras = load_keras()
    if not isinstance(source, keras.Layer):  # nodes of keras.ops are not layers
        return
    try:
        for old, new in zip(source._flatten_layers(), target._flatten_layers(), strict=True):
            kept: dict[str, Any] = {}
            old.save_own_variables(kept)
            if kept:
                new.load_own_variables({name: keras.ops.convert_to_numpy(value) for name, value in kept.items()})
            if hasattr(old, "save_assets"):
                with tempfile.TemporaryDirectory(prefix="litelambda-") as folder:
                    old.save_assets(folder)
                    new.load_assets(folder)
    except (AttributeError, KeyError, OSError, ValueError) as error:
        raise TrainError(f"layer {source.name!r} ({type(source).__name__}) cannot be copied: {error}") from error


def check_same(model: Any, copy: Any, done: str, *, changed: Iterable[str] = ()) -> None:
    """Refuse a copy that answers differently to made rows.

    Args:
        model: the original.
        copy: with layers of the same names.
        done: what was done to it, for the message.
        changed: layers whose own outputs may differ.

    Raises:
        TrainError: it does; the message names the first layer with another output.
    """
    expected = list(answered(model))
    batches = [batch for batch, _ in expected]
    ulps = max((difference_ulps(right, _answer(copy, batch)) for batch, right in expected), default=0.0)
    if ulps <= ULPS:
        return
    raise TrainError(
        f"{_first_different(model, copy, batches, set(changed))} answers differently once the model is {done} "
        f"({ulps:.3g} units in the last place of float32 at the outputs, at most {ULPS} are allowed): "
        "its class must save and load all that it keeps (see save_own_variables and get_config)"
    )


def _answer(model: Any, batch: Arrays) -> list[Any]:
    return call(model, list(batch.values()))


def _first_different(model: Any, copy: Any, batches: list[Arrays], changed: set[str]) -> str:
    before, after = _record(model, batches), _record(copy, batches)
    for layer in layers_of(model):
        both = before.get(layer.name), after.get(layer.name)
        if layer.name not in changed and None not in both and difference_ulps(*both) > ULPS:
            return f"layer {layer.name!r} ({type(layer).__name__})"
    return f"the model {model.name!r}"


def _record(model: Any, batches: list[Arrays]) -> Recorded:
    """The outputs of each layer of a model, by its name."""
    recorded: Recorded = {}

    def recording(layer: Any) -> Any:
        def record(original: Any, *arguments: Any, **settings: Any) -> Any:
            outputs = original(*arguments, **settings)
            recorded.setdefault(layer.name, []).append(outputs)
            return outputs

        return record

    with ExitStack() as stack:
        for layer in layers_of(model):
            stack.enter_context(overridden(layer, "call", recording(layer)))
        for batch in batches:
            _answer(model, batch)
    return recorded
