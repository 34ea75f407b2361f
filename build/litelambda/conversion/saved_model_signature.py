"""A SavedModel's default signature, copied under the name that the converter is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from litelambda.conversion.converter import SIGNATURE
from litelambda.conversion.saved_model_check import check_saved_model
from litelambda.evaluation.sources_loaded import load_signature
from litelambda.keras_tools.backend import load_tensorflow


def with_our_signature(path: Path, folder: Path) -> Path:
    """In the converter's process: copy a SavedModel so that its default signature is "predict"; the copy's folder.

    Args:
        path: the SavedModel.
        folder: a scratch folder.
    """
    copy = folder / "signature"
    if copy.exists():
        return copy
    tf = load_tensorflow()
    check_saved_model(path)
    loaded, function = load_signature(path)
    specs = function.structured_input_signature[1]
    names = list(specs)
    module = tf.Module()
    module.source = loaded

    def predict(*tensors: Any) -> Any:
        return function(**dict(zip(names, tensors, strict=True)))

    module.predict = tf.function(
        predict, input_signature=[tf.TensorSpec(specs[name].shape, specs[name].dtype, name=name) for name in names]
    )
    tf.saved_model.save(module, str(copy), signatures={SIGNATURE: module.predict})
    return copy
