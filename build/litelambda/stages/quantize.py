"""Quantize: a Keras model becomes an int8 (or dynamic, float16, float32) flatbuffer with the signature "predict"."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import ConversionError
from litelambda.sections import Quantize
from litelambda.stages.backend import load_keras, load_tensorflow
from litelambda.stages.convert import SIGNATURE, Conversion, ConverterCrashError, convert
from litelambda.stages.flatbuffer import Signature, float_operators, read_signatures

_NOTES = {
    "dynamic": "int8 weights, float32 activations: quantize.scheme is 'dynamic'",
    "float16": "float16 weights, computed in float32: quantize.scheme is 'float16'",
    "float32": "not quantized: quantize.scheme is 'float32'",
}


@dataclass(frozen=True)
class Quantized:
    """What the converter made.

    Attributes:
        artifact: the flatbuffer to publish.
        float_artifact: the same model unquantized and uncompressed, to compare sizes with.
        signature: its entry point.
        scheme: as in the recipe.
        io: dtype at the edges.
        float_operators: operators that compute in float.
        note: why they do, or None where none does.
    """

    artifact: bytes
    float_artifact: bytes
    signature: Signature
    scheme: str
    io: str
    float_operators: list[str]
    note: str | None


def quantize(
    model: Any, representative: Mapping[str, NDArray[Any]], settings: Quantize, original: Any = None
) -> Quantized:
    """Convert a model.

    Args:
        model: a Functional or Sequential Keras model.
        representative: rows of the training split per input name, to calibrate activations with.
        settings: the recipe's `quantize` section.
        original: the model before it was compressed, whose size the artifact's is compared with.

    Raises:
        ConversionError: the model cannot be converted; the message names operators, or the layer that crashes.
    """
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        folder = Path(scratch)
        export(model, folder / "model")
        np.savez(folder / "representative.npz", *representative.values())
        subject = f"the model {model.name!r}"
        if original is not None and original is not model:
            export(original, folder / "original")
        float_folder = folder / "original" if (folder / "original").exists() else folder / "model"
        plain = Conversion(subject, str(float_folder), str(folder / "float.tflite"))
        quantized = Conversion(
            subject,
            str(folder / "model"),
            str(folder / "model.tflite"),
            scheme=settings.scheme,
            io=settings.io,
            representative=str(folder / "representative.npz"),
            input_names=tuple(representative),
        )
        try:
            convert([plain, quantized], folder)
        except ConverterCrashError as error:
            raise ConversionError(f"{error}: {_blame(model, settings, folder)}") from error
        artifact = (folder / "model.tflite").read_bytes()
        float_artifact = (folder / "float.tflite").read_bytes()
    in_float = float_operators(artifact)
    return Quantized(
        artifact=artifact,
        float_artifact=float_artifact,
        signature=next(each for each in read_signatures(artifact) if each.key == SIGNATURE),
        scheme=settings.scheme,
        io=settings.io,
        float_operators=in_float,
        note=_note(settings.scheme, in_float),
    )


def export(model: Any, folder: Path) -> None:
    """Write a SavedModel with the signature "predict", named after the model's inputs and output layers.

    Raises:
        ConversionError: the model is neither Functional nor Sequential, so its inputs have no names.
    """
    tf, keras = load_tensorflow(), load_keras()
    if not getattr(model, "inputs", None):
        raise ConversionError(f"{type(model).__name__} is neither a Functional nor a Sequential Keras model")
    fixed, names = constant_reshapes(model), output_names(model)

    def predict(*tensors: Any) -> dict[str, Any]:
        outputs = fixed(tensors[0] if len(tensors) == 1 else list(tensors), training=False)
        return dict(zip(names, outputs if isinstance(outputs, list | tuple) else [outputs], strict=True))

    archive = keras.export.ExportArchive()
    archive.track(fixed)
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype, name=tensor.name) for tensor in model.inputs]
    archive.add_endpoint(SIGNATURE, predict, input_signature=specs)
    archive.write_out(str(folder), verbose=False)


def output_names(model: Any) -> list[str]:
    """Name a model's outputs: after the layers that make them."""
    names: list[str] = getattr(model, "output_names", None) or [model.layers[-1].name]
    return names


def constant_reshapes(model: Any) -> Any:
    """Copy a model with every Flatten and Reshape made a reshape to the constant (-1, …).

    Keras's own take the batch from a SHAPE operator. After a resize LiteRT then keeps a stale output size and writes
    past its end.
    """
    keras = load_keras()

    def clone(layer: Any) -> Any:
        flattens = isinstance(layer, keras.layers.Flatten) and layer.data_format != "channels_first"
        if not flattens and not isinstance(layer, keras.layers.Reshape):
            return layer.__class__.from_config(layer.get_config())

        def reshape(tensor: Any) -> Any:
            sizes = layer.compute_output_shape(tensor.shape)[1:]
            return layer(tensor) if None in sizes else keras.ops.reshape(tensor, (-1, *sizes))

        return keras.layers.Lambda(reshape, name=layer.name)

    copy = keras.models.clone_model(model, clone_function=clone, recursive=True)
    copy.set_weights(model.get_weights())
    return copy


def _blame(model: Any, settings: Quantize, folder: Path) -> str:
    """Find the layer that crashes the converter by converting each alone."""
    keras = load_keras()
    conversions = []
    for index, layer in enumerate(model.layers):
        if isinstance(layer, keras.layers.InputLayer):
            continue
        inputs = keras.tree.map_structure(
            lambda tensor: keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype), layer.input
        )
        alone = keras.Model(inputs, layer.__class__.from_config(layer.get_config())(inputs))
        saved_model, rows = folder / f"layer{index}", folder / f"layer{index}.npz"
        export(alone, saved_model)
        noise = np.random.default_rng(0)
        shapes = [(8, *tensor.shape[1:]) for tensor in alone.inputs]
        np.savez(rows, *(noise.random(shape, dtype=np.float32) for shape in shapes))
        conversions.append(
            Conversion(
                subject=f"layer {layer.name!r} ({type(layer).__name__})",
                saved_model=str(saved_model),
                output=str(folder / "alone.tflite"),
                scheme=settings.scheme,
                io=settings.io,
                representative=str(rows),
                input_names=tuple(tensor.name for tensor in alone.inputs),
            )
        )
    try:
        convert(conversions, folder)
    except ConverterCrashError as error:
        return f"{error.subject} crashes it on its own; replace it, or choose another quantize.scheme"
    except ConversionError as error:
        return str(error)
    return "no layer crashes it on its own; try another quantize.scheme"


def _note(scheme: str, in_float: list[str]) -> str | None:
    if scheme == "int8":
        return f"TFLite has no int8 kernel for {', '.join(in_float)}: computed in float32" if in_float else None
    return _NOTES[scheme]
