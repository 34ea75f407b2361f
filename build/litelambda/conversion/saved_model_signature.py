"""A SavedModel's default signature: loaded, and copied under the name that the converter is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litelambda.artifact.flatbuffer import SIGNATURE
from litelambda.common.errors import ConversionError, first_line
from litelambda.conversion.saved_model_check import check_saved_model
from litelambda.keras_tools.backend import load_tensorflow

_DEFAULT_SIGNATURE = "serving_default"


def load_signature(path: Path) -> tuple[Any, Any]:
    """Load a SavedModel that `check_saved_model` let pass: the object that holds its variables, and its signature.

    Raises:
        ConversionError: it cannot be loaded, or has no signature.
    """
    tf = load_tensorflow()
    try:
        loaded = tf.saved_model.load(str(path))
        signatures = dict(loaded.signatures)
    except Exception as error:
        raise ConversionError(f"TensorFlow cannot load {path}: {first_line(error)}") from error
    if not signatures:
        raise ConversionError(f"{path} has no signature: save it with signatures=…, or import the .keras file")
    return loaded, signatures.get(_DEFAULT_SIGNATURE) or next(iter(signatures.values()))


def with_our_signature(path: Path, folder: Path, batch: int | None = None) -> Path:
    """In the converter's process: copy a SavedModel so that its default signature is "predict".

    Args:
        path: the SavedModel.
        folder: a scratch folder.
        batch: the only number of rows that the copy takes, where the batch is open; None for any.

    Returns:
        The folder of the copy.
    """
    copy = folder / f"signature-{batch}"
    if copy.exists():
        return copy
    tf = load_tensorflow()
    check_saved_model(path)
    loaded, function = load_signature(path)
    specs = function.structured_input_signature[1]
    names = list(specs)
    module = tf.Module()
    module.source = loaded  # it owns the variables: without it they would be collected

    def predict(*tensors: Any) -> Any:
        return function(**dict(zip(names, tensors, strict=True)))

    inputs = [tf.TensorSpec(_with_batch(specs[name].shape, batch), specs[name].dtype, name=name) for name in names]
    module.predict = tf.function(predict, input_signature=inputs)
    tf.saved_model.save(module, str(copy), signatures={SIGNATURE: module.predict})
    return copy


def _with_batch(shape: Any, batch: int | None) -> Any:
    is_open = batch is not None and shape.rank and shape[0] is None
    return [batch, *shape[1:]] if is_open else shape
