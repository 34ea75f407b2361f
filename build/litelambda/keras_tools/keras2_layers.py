"""What files of Keras 2 have and Keras 3 lacks: see `keras2_files`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from litelambda.keras_tools.backend import load_keras, load_tensorflow

__all__ = ["TensorFlowFunction", "hard_sigmoid"]

keras = load_keras()
_MODULES = ("__operators__", "linalg", "math", "nn", "image")
_FUNCTIONS = (
    "broadcast_to", "cast", "clip_by_value", "concat", "expand_dims", "floor_div", "gather", "identity", "matmul",
    "maximum", "minimum", "ones_like", "pad", "pow", "reshape", "reverse", "shape", "slice", "split", "squeeze",
    "stack", "stop_gradient", "strided_slice", "tile", "transpose", "unstack", "where", "zeros_like",
)  # fmt: skip
"""Of TensorFlow's own, those that compute: others read files, or run code that a file names."""


@keras.saving.register_keras_serializable("litelambda")  # type: ignore[untyped-decorator]
def hard_sigmoid(x: Any) -> Any:
    """Keras 2's: 0 up to -2.5, 1 from 2.5 on. Keras 3 has `relu6(x + 3) / 6` under this name."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


@keras.saving.register_keras_serializable("litelambda")
class TensorFlowFunction(keras.layers.Layer):  # type: ignore[misc, name-defined] # Keras has no types
    """A function of TensorFlow that was called on the tensors of a Functional model, as in `x / 255`.

    Args:
        function: its name below `tf.`, such as "math.truediv".
        first: the first argument; a tensor is `{"tensor": number}`.
        keywords: the others.
        **options: of any layer.

    Raises:
        ValueError: it does something else than to compute.
    """

    def __init__(self, function: str, first: Any, keywords: Mapping[str, Any], **options: Any) -> None:
        super().__init__(autocast=False, **options)
        module, _, name = function.removeprefix("compat.v1.").rpartition(".")
        if name.startswith("_") or not (name in _FUNCTIONS if not module else name and module in _MODULES):
            raise ValueError(
                f"the layer {self.name!r} calls tf.{function}, which is not among the functions that are taken"
            )
        self.function, self.first, self.keywords = function, first, dict(keywords)

    def call(self, tensors: Any) -> Any:
        """Call it on the model's tensors, and on what its author gave besides."""
        found: Any = load_tensorflow()
        for name in self.function.split("."):
            found = getattr(found, name)
        keywords = {name: _filled(value, tensors) for name, value in self.keywords.items()}
        return found(_filled(self.first, tensors), **keywords)

    def get_config(self) -> dict[str, Any]:
        """What makes it again."""
        own = {"function": self.function, "first": self.first, "keywords": self.keywords}
        return {**super().get_config(), **own}


def _filled(value: Any, tensors: Any) -> Any:
    """An argument with its tensors, and slices as in `x[:, 1:]`, for which Keras 2 writes mappings."""
    if isinstance(value, list | tuple):
        return [_filled(each, tensors) for each in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"tensor"}:
        return tensors[value["tensor"]]
    if value.keys() == {"start", "stop", "step"}:
        return slice(*(_filled(value[name], tensors) for name in ("start", "stop", "step")))
    if value == {"class_name": "__ellipsis__"}:
        return Ellipsis
    return {key: _filled(each, tensors) for key, each in value.items()}
