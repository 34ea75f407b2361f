"""Export: a Keras model becomes what the converter's process reads.

On the TensorFlow backend that is a SavedModel. A model that was trained on JAX is written as a .keras file, and becomes
a SavedModel in the converter's process, whose Keras runs on TensorFlow: a process can have only one backend.
"""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any

from litelambda.errors import ConversionError
from litelambda.stages.backend import backend, load_keras, load_tensorflow
from litelambda.stages.constant_shapes import with_constant_shapes
from litelambda.stages.convert import KERAS_SUFFIX, SIGNATURE
from litelambda.stages.unroll import unrolled


def export(model: Any, folder: Path, batch: int | None = None) -> Path:
    """Write a model for the converter's process.

    Args:
        model: a Functional or Sequential Keras model.
        folder: where a SavedModel goes; a .keras file lies beside it, with the same name.
        batch: the only number of rows that the SavedModel takes; None for any, or what the model's inputs say.

    Returns:
        What was written, for `Conversion.saved_model`.

    Raises:
        ConversionError: the model is neither Functional nor Sequential, so its inputs have no names.
    """
    if not getattr(model, "inputs", None):
        raise ConversionError(f"{type(model).__name__} is neither a Functional nor a Sequential Keras model")
    if backend() == "tensorflow":
        _write_saved_model(model, folder, batch)
        return folder
    return save_with_modules(model, folder.with_suffix(KERAS_SUFFIX))


def save_with_modules(model: Any, path: Path) -> Path:
    """Write a .keras file, and beside it where its custom layers come from, for another process of this build."""
    model.save(path)
    _modules_file(path).write_text(json.dumps(_user_modules(model)))
    return path


def export_again(path: Path, batch: int | None = None) -> Path:
    """In the converter's process: make the SavedModel of a Keras file; its folder.

    Args:
        path: a .keras file that `export` wrote, or one from elsewhere, which brings no classes of its own.
        batch: as in `export`.

    Raises:
        ConversionError: the model cannot be made on the TensorFlow backend.
    """
    keras, folder = load_keras(), path.with_suffix("" if batch is None else f".{batch}")
    if folder.exists():
        return folder
    if not _modules_file(path).exists():
        _write_saved_model(keras.models.load_model(path, compile=False), folder, batch)
        return folder
    try:
        model = keras.models.load_model(path, import_own_modules(path), compile=False, safe_mode=False)
        _write_saved_model(model, folder, batch)
    except Exception as error:
        raise ConversionError(
            f"it was trained on JAX and cannot be made on TensorFlow: {type(error).__name__}: {error}; "
            "custom layers must be written with keras.ops, in a module that can be imported"
        ) from error
    return folder


def _write_saved_model(model: Any, folder: Path, batch: int | None = None) -> None:
    """Write a SavedModel with the signature "predict", named after the model's inputs and output layers."""
    tf, keras = load_tensorflow(), load_keras()
    fixed, names = constant_reshapes(model), output_names(model)

    def predict(*tensors: Any) -> dict[str, Any]:
        outputs = fixed(tensors[0] if len(tensors) == 1 else list(tensors), training=False)
        return dict(zip(names, outputs if isinstance(outputs, list | tuple) else [outputs], strict=True))

    archive = keras.export.ExportArchive()
    archive.track(fixed)
    specs = [
        tf.TensorSpec((batch or tensor.shape[0], *tensor.shape[1:]), tensor.dtype, name=tensor.name)
        for tensor in model.inputs
    ]
    archive.add_endpoint(SIGNATURE, predict, input_signature=specs)
    archive.write_out(str(folder), verbose=False)


def output_names(model: Any) -> list[str]:
    """Name a model's outputs: after the layers that make them."""
    names: list[str] = getattr(model, "output_names", None) or [model.layers[-1].name]
    return names


def constant_reshapes(model: Any) -> Any:
    """Copy a model with every Flatten and Reshape made a reshape to the constant (-1, …), other layers as they convert.

    Keras's own take the batch from a SHAPE operator. After a resize LiteRT then keeps a stale output size and writes
    past its end.
    """
    keras = load_keras()

    def clone(layer: Any) -> Any:
        flattens = isinstance(layer, keras.layers.Flatten) and layer.data_format != "channels_first"
        if not flattens and not isinstance(layer, keras.layers.Reshape):
            return with_constant_shapes(layer) or unrolled(layer)

        def reshape(tensor: Any) -> Any:
            sizes = layer.compute_output_shape(tensor.shape)[1:]
            return layer(tensor) if None in sizes else keras.ops.reshape(tensor, (-1, *sizes))

        return keras.layers.Lambda(reshape, name=layer.name)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _user_modules(model: Any) -> dict[str, str]:
    """The modules that a model's own layers and registered functions come from, each with where to import it from."""
    own = [type(layer) for layer in model._flatten_layers(include_self=False)]
    registered = load_keras().saving.get_custom_objects().values()
    folders = {}
    for name in sorted({part.__module__ for part in (*own, *registered)}):
        file = getattr(sys.modules.get(name), "__file__", None)
        if file is None or name.partition(".")[0] == "keras":
            continue
        depth = name.count(".") + (Path(file).name == "__init__.py")
        folders[name] = str(Path(file).resolve().parents[depth])
    return folders


def import_own_modules(path: Path) -> dict[str, Any]:
    """Import a model's own modules, which registers what they register; their classes by name."""
    found: dict[str, Any] = {}
    for name, folder in json.loads(_modules_file(path).read_text()).items():
        if folder not in sys.path:
            sys.path.insert(0, folder)
        module = vars(importlib.import_module(name))
        found.update({key: part for key, part in module.items() if isinstance(part, type)})
    return found


def _modules_file(path: Path) -> Path:
    return path.with_suffix(".modules.json")
