"""Export: writes a Keras model in the form that the converter's process reads.

On the TensorFlow backend that is a SavedModel. A model that was trained on JAX is written as a .keras file, and becomes
a SavedModel in the converter's process, whose Keras runs on TensorFlow: a process can have only one backend.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from litelambda.artifact.flatbuffer import SIGNATURE
from litelambda.common.errors import ConversionError
from litelambda.conversion.exact_operators import with_exact_operators
from litelambda.conversion.missing_operators import without_missing_operators
from litelambda.conversion.recurrent_layers import unrolled
from litelambda.conversion.rewrites import Rewrite, proven, rewritten
from litelambda.conversion.signature_tensors import Names, safe_names, write_names
from litelambda.conversion.static_shapes import with_constant_shapes
from litelambda.keras_tools.backend import backend, load_keras, load_tensorflow
from litelambda.keras_tools.dtype_policies import in_float32
from litelambda.keras_tools.graph import call, layer_names
from litelambda.keras_tools.model_files import (
    KERAS_SUFFIX,
    import_own_modules,
    load_model_file,
    modules_file,
    save_with_modules,
)
from litelambda.keras_tools.output_names import output_names

_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\>-]*")


def export(model: Any, folder: Path, batch: int | None = None) -> Path:
    """Write a model for the converter's process.

    Args:
        model: a Functional or Sequential Keras model.
        folder: where a SavedModel goes; a .keras file goes next to it, with the same name.
        batch: the only number of rows that the SavedModel takes; None for any, or what the model's inputs say.

    Returns:
        The path that was written, for `Conversion.saved_model`.

    Raises:
        ConversionError: the model is neither Functional nor Sequential, so its inputs have no names.
    """
    if not getattr(model, "inputs", None):
        raise ConversionError(f"{type(model).__name__} is neither a Functional nor a Sequential Keras model")
    if backend() == "tensorflow":
        _write_saved_model(model, folder, batch)
        return folder
    return save_with_modules(model, folder.with_suffix(KERAS_SUFFIX))


def export_again(path: Path, batch: int | None = None) -> Path:
    """In the converter's process: make the SavedModel of a Keras file; its folder.

    Args:
        path: a .keras file that `export` wrote, or one from elsewhere, which brings no classes of its own.
        batch: as in `export`.

    Raises:
        ConversionError: the model cannot be made on the TensorFlow backend.
    """
    folder = path.with_suffix("" if batch is None else f".{batch}")
    if folder.exists():
        return folder
    if not modules_file(path).exists():
        _write_saved_model(load_exported(path), folder, batch)
        return folder
    try:
        _write_saved_model(load_exported(path), folder, batch)
    except Exception as error:
        raise ConversionError(
            f"it was trained on JAX and cannot be made on TensorFlow: {type(error).__name__}: {error}; "
            "custom layers must be written with keras.ops, in a module that can be imported"
        ) from error
    return folder


def load_exported(path: Path) -> Any:
    """The model of a Keras file: one that `export` wrote, or one from elsewhere, which brings no classes of its own."""
    if not modules_file(path).exists():
        return load_model_file(path)
    return load_model_file(path, import_own_modules(path), safe_mode=False)


def _write_saved_model(model: Any, folder: Path, batch: int | None = None) -> None:
    """Write a SavedModel with the signature "predict", named after the model's inputs and outputs."""
    _check_names(model)
    tf, names = load_tensorflow(), output_names(model)
    own = [tensor.name for tensor in model.inputs]
    given = safe_names(own)
    with in_float32(model):
        rewrites = proven(model, rewrites_for(model))

        def predict(*tensors: Any) -> dict[str, Any]:
            with rewritten(rewrites):
                return dict(zip(names, call(model, tensors), strict=True))

        module = tf.Module()
        module.predict = tf.function(
            predict,
            input_signature=[
                tf.TensorSpec((batch or tensor.shape[0], *tensor.shape[1:]), tensor.dtype, name=name)
                for tensor, name in zip(model.inputs, given, strict=True)
            ],
            autograph=False,
        )
        module.resources = _resources(model, module.predict.get_concrete_function())
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.predict})
    write_names(folder, Names(dict(zip(given, own, strict=True)), layer_names(model)))


def _check_names(model: Any) -> None:
    """Refuse names of layers that TensorFlow refuses, with which Keras's own `predict` would fail.

    Raises:
        ConversionError: a layer has such a name.
    """
    inputs = load_keras().layers.InputLayer
    for layer in model._flatten_layers(include_self=False):
        if not isinstance(layer, inputs) and not _SCOPE.fullmatch(layer.name):
            raise ConversionError(
                f"layer {layer.name!r} ({type(layer).__name__}) has a name that TensorFlow does not accept: "
                "use letters, digits, '_', '.' and '-'"
            )


def _resources(model: Any, function: Any) -> list[Any]:
    """The variables and tables that a function uses, which its SavedModel has to hold, and no others."""
    used = {id(outer) for outer, _ in function.graph.captures}
    parts = [part for layer in model._flatten_layers() for part in vars(layer).values()]
    tables = [part for part in parts if id(getattr(part, "resource_handle", None)) in used]
    return [*function.variables, *tables]


def rewrites_for(model: Any) -> list[Rewrite]:
    """The rewrites with which a model converts.

    Raises:
        ConversionError: a layer keeps its state from one request to the next.
    """
    layers = {id(layer): layer for layer in model._flatten_layers(include_self=False)}.values()
    found = (rewrite(layer) for layer in layers for rewrite in (with_constant_shapes, with_exact_operators, unrolled))
    return [*(each for each in found if each is not None), *without_missing_operators(model)]
