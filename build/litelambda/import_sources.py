"""Reads a model as others made it: .tflite, .keras, .h5 or SavedModel, converted and quantized where it has to be."""

from __future__ import annotations

import struct
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.errors import ConversionError, DataError, UsageError, first_line
from litelambda.sections import Quantize
from litelambda.stages.backend import load_keras, load_tensorflow, native_stderr_held_back
from litelambda.stages.convert import SIGNATURE, Conversion, convert
from litelambda.stages.flatbuffer import Signature, Tensor, float_operators, read_signatures, with_open_batch
from litelambda.stages.quantize import Quantized, explain_float, quantize

Rows = dict[str, NDArray[Any]]

KERAS_SUFFIXES = (".keras", ".h5", ".hdf5")
_STRINGS = (b"", b"a", b"text", "gr\u00fc\u00df".encode(), b"\xff\x00", b"longer " * 40)
_DEFAULT_SIGNATURES = (SIGNATURE, "serving_default")


def read_model(path: Path, representative: Path | None) -> tuple[Quantized, Rows | None]:
    """Read a model and make a flatbuffer of it.

    Args:
        path: a .tflite, .keras or .h5 file, or the folder of a SavedModel.
        representative: rows of data as the model will see it; with them the model is quantized to int8.

    Returns:
        The flatbuffer and what is known of it, and the rows by input name, where there are any.

    Raises:
        UsageError: no such file, or of another kind.
        DataError: the representative rows do not fit the model's inputs.
        ConversionError: the model cannot be read or converted.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir():
        return _read_saved_model(path, representative)
    if path.suffix in KERAS_SUFFIXES:
        return _read_keras(path, representative)
    if path.suffix != ".tflite":
        raise UsageError(f"{path}: expected a .tflite, .keras or .h5 file, or the folder of a SavedModel")
    if representative is not None:
        raise UsageError(
            f"{path} is converted already and cannot be quantized any more: import the .keras file or SavedModel "
            "it was made from, or leave --representative out"
        )
    return _read_tflite(path.read_bytes(), str(path)), None


def _read_tflite(artifact: bytes, name: str) -> Quantized:
    if artifact[4:8] != b"TFL3":
        raise ConversionError(f"{name} is no TFLite model: it lacks the identifier TFL3 at offset 4")
    try:
        signatures = {signature.key: signature for signature in read_signatures(artifact)}
        in_float = float_operators(artifact)
    except (struct.error, LookupError, TypeError, ValueError, AttributeError) as error:
        raise ConversionError(f"{name} is damaged or cut short: {type(error).__name__}: {error}") from error
    key = next((each for each in _DEFAULT_SIGNATURES if each in signatures), next(iter(signatures)))
    scheme = "float32" if in_float else "int8"
    note = f"imported as it is; {', '.join(in_float)} compute in float" if in_float else "imported as it is"
    signature = signatures[key]
    return Quantized(artifact, artifact, with_open_batch(signature), scheme, _io(signature), in_float, note)


def _io(signature: Signature) -> str:
    """Dtype at the edges; "float32" stands for everything that no scheme quantizes."""
    dtype = signature.inputs[0].dtype
    return dtype if dtype in ("int8", "uint8") else "float32"


def _read_keras(path: Path, representative: Path | None) -> tuple[Quantized, Rows | None]:
    keras = load_keras()
    try:
        with native_stderr_held_back():
            model = keras.models.load_model(path, compile=False)
    except Exception as error:
        raise ConversionError(
            f"Keras cannot load {path}: {type(error).__name__}: {first_line(error)}\n"
            "A model with Lambda layers or classes of its own is imported as a SavedModel, which needs none of its "
            "code: write it with model.export(FOLDER)"
        ) from error
    if not getattr(model, "inputs", None):
        raise ConversionError(f"{path}: {type(model).__name__} is neither a Functional nor a Sequential model")
    shapes = {tensor.name: tuple(tensor.shape) for tensor in model.inputs}
    dtypes = {tensor.name: tensor.dtype for tensor in model.inputs}
    rows = _read_rows(representative, shapes, dtypes) if representative is not None else None
    settings = Quantize() if rows is not None else Quantize(scheme="float32")
    noise = {name: np.zeros((1, *(size or 1 for size in shape[1:])), np.float32) for name, shape in shapes.items()}
    return quantize(model, rows if rows is not None else noise, settings), rows


def _read_saved_model(path: Path, representative: Path | None) -> tuple[Quantized, Rows | None]:
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        folder = Path(scratch)
        shapes, dtypes = _export_again(path, folder / "model")
        rows = _read_rows(representative, shapes, dtypes) if representative is not None else None
        subject = f"the SavedModel {path}"
        jobs = [Conversion(subject, str(folder / "model"), str(folder / "float.tflite"))]
        if rows is not None:
            np.savez(folder / "representative.npz", *rows.values())
            jobs.append(
                Conversion(
                    subject, str(folder / "model"), str(folder / "int8.tflite"), scheme="int8",
                    representative=str(folder / "representative.npz"), input_names=tuple(rows),
                )
            )  # fmt: skip
        convert(jobs, folder)
        artifact, in_float = Path(jobs[-1].output).read_bytes(), Path(jobs[0].output).read_bytes()
    operators = float_operators(artifact)
    signature = next(each for each in read_signatures(artifact) if each.key == SIGNATURE)
    note = explain_float(operators) if rows is not None else "not quantized: imported without representative rows"
    return Quantized(artifact, in_float, signature, jobs[-1].scheme, "float32", operators, note), rows


def _export_again(path: Path, folder: Path) -> tuple[dict[str, tuple[int | None, ...]], dict[str, str]]:
    """Copy a SavedModel's default signature under the name that the converter is told.

    Returns:
        Its inputs' shapes and dtypes by name.
    """
    tf = load_tensorflow()
    try:
        with native_stderr_held_back():
            loaded = tf.saved_model.load(str(path))
            signatures = dict(loaded.signatures)
    except Exception as error:
        raise ConversionError(f"TensorFlow cannot load {path}: {first_line(error)}") from error
    if not signatures:
        raise ConversionError(f"{path} has no signature: save it with signatures=…, or import the .keras file")
    function = signatures.get("serving_default") or next(iter(signatures.values()))
    specs = function.structured_input_signature[1]
    names = list(specs)
    module = tf.Module()
    module.source = loaded

    def predict(*tensors: Any) -> Any:
        return function(**dict(zip(names, tensors, strict=True)))

    module.predict = tf.function(
        predict, input_signature=[tf.TensorSpec(specs[name].shape, specs[name].dtype, name=name) for name in names]
    )
    with native_stderr_held_back():
        tf.saved_model.save(module, str(folder), signatures={SIGNATURE: module.predict})
    return {name: tuple(specs[name].shape) for name in names}, {name: specs[name].dtype.name for name in names}


def _read_rows(path: Path, shapes: Mapping[str, tuple[int | None, ...]], dtypes: Mapping[str, str]) -> Rows:
    """Representative rows by input name: .npy for a model of one input, .npz with an array for each, or only one."""
    try:
        with np.load(path, allow_pickle=False) if path.suffix == ".npz" else _single(path) as arrays:
            found = {name: np.asarray(arrays[name]) for name in arrays}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} is no .npy or .npz file of numbers: {error}") from error
    if len(shapes) == 1 and len(found) == 1:
        found = dict(zip(shapes, found.values(), strict=True))
    if missing := [name for name in shapes if name not in found]:
        raise DataError(f"{path} has no rows for {', '.join(missing)}; it has {', '.join(found)}")
    for name, shape in shapes.items():
        if found[name].dtype.kind not in "buif":
            raise DataError(
                f"{path}: {name!r} holds {found[name].dtype}, expected numbers; "
                "import a model with string inputs without --representative"
            )
        row = found[name].shape[1:]
        if (
            not len(found[name])
            or len(row) != len(shape) - 1
            or any(wanted not in (None, size) for wanted, size in zip(shape[1:], row, strict=True))
        ):
            raise DataError(f"{path}: {name!r} has shape {list(found[name].shape)}, expected rows of {list(shape[1:])}")
    return {name: found[name].astype(dtypes[name]) for name in shapes}


class _single:  # noqa: N801 - a context manager, read as a function
    """The array of a .npy file, in the form of an .npz archive."""

    def __init__(self, path: Path) -> None:
        self._array = np.load(path, allow_pickle=False)

    def __enter__(self) -> dict[str, NDArray[Any]]:
        return {"rows": self._array}

    def __exit__(self, *_: object) -> None:
        pass


def random_rows(inputs: tuple[Tensor, ...], count: int) -> Rows:
    """Seeded rows in each input's own dtype: reals in [0, 1), small integers, strings of several kinds and lengths."""
    noise = np.random.default_rng(0)
    rows: Rows = {}
    for tensor in inputs:
        shape = (count, *tensor.shape[1:]) if tensor.shape else (count,)
        if tensor.dtype == "string":
            rows[tensor.name] = noise.choice(np.array(_STRINGS, object), shape)
            continue
        dtype = np.dtype(tensor.dtype)
        values = noise.random(shape, dtype=np.float32)
        rows[tensor.name] = values.astype(dtype) if dtype.kind == "f" else (values * 2).astype(dtype)
    return rows
