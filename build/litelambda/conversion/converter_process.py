"""What `converter.convert` calls in the converter's process: makes a list of flatbuffers."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import SIGNATURE, count_half_read_float_splits
from litelambda.common.errors import ConversionError
from litelambda.conversion.export import export_again
from litelambda.conversion.gradient_export import Samples, export_gradients_again
from litelambda.conversion.recurrent_layers import MAX_STEPS
from litelambda.conversion.remedies import layers_with, on_missing
from litelambda.conversion.saved_model_signature import with_our_signature
from litelambda.conversion.signature_tensors import read_names, with_own_edges
from litelambda.keras_tools.backend import load_tensorflow
from litelambda.keras_tools.model_files import KERAS_SUFFIXES

_MISSING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
STARTED = "converting "
"""Before the name of what is converted next."""

_TRIES = 8
"""Of an int8 conversion, see `_convert`: one in four leaves a split in float, so all eight do in 1 of 65,536 builds."""


@dataclass(frozen=True)
class Conversion:
    """One flatbuffer to make.

    Attributes:
        subject: what is converted, for messages.
        saved_model: folder of the SavedModel, with the signature "predict"; or a .keras file from `export`.
        output: where the flatbuffer goes.
        scheme: int8, dynamic, float16 or float32.
        io: dtype at the edges of an int8 model.
        representative: calibration rows by input name; needed by int8.
        batch: the only number of rows that a source from elsewhere is converted for; None for any.
        is_signature: the SavedModel is from elsewhere, and its default signature is to be called "predict" first.
        samples: what is converted are the gradients of a .keras file, chosen by these rows.
    """

    subject: str
    saved_model: str
    output: str
    scheme: str = "float32"
    io: str = "float32"
    representative: Mapping[str, NDArray[Any]] | None = None
    batch: int | None = None
    is_signature: bool = False
    samples: Samples | None = None


def make_flatbuffers(conversions: Sequence[Conversion]) -> None:
    """Make flatbuffers, up to the first that fails, and note on stderr which one is next.

    Raises:
        ConversionError: one failed.
    """
    # int8 is made of the float flatbuffer: where both are wanted, one run of the converter makes the two.
    with_int8 = {_kind(each, "float32") for each in conversions if each.representative and each.scheme == "int8"}
    in_float = {_kind(each, "float32"): each.output for each in conversions if each.scheme == "float32"}
    made: dict[tuple[str, str], str] = {}
    for conversion in conversions:
        print(f"{STARTED}{conversion.subject}", file=sys.stderr, flush=True)
        kind = _kind(conversion, conversion.scheme)
        if kind in with_int8:
            continue
        if kind in made and conversion.scheme != "int8":  # int8's edges and calibration may differ
            shutil.copyfile(made[kind], conversion.output)
            continue
        try:
            artifact = _convert(conversion, in_float.get(_kind(conversion, "float32")))
        except Exception as error:  # the converter raises bare ones, too
            raise ConversionError(f"{conversion.subject} cannot be converted: {_explain(error)}") from error
        Path(conversion.output).write_bytes(artifact)
        made[kind] = conversion.output


def _kind(conversion: Conversion, scheme: str) -> tuple[str, str]:
    return f"{conversion.saved_model} {conversion.batch}", scheme


def _explain(error: Exception, layers: Sequence[str] = ()) -> str:
    """The converter's reason in a sentence: the operators that it lacks and their layers, or its first line."""
    text = str(error)
    if isinstance(error, ConversionError):
        return text
    operators = [name for line in _MISSING.findall(text) for name in line.split(", ")]
    if operators and "TensorList" not in " ".join(operators):
        users = layers_with(text, operators, layers)
        whose = f" (layer {', '.join(map(repr, users))})" if users else ""
        return f"TFLite has no operator for {', '.join(operators)}{whose}: {on_missing(operators)}"
    if "TensorList" in text:
        return (
            "a recurrent layer loops over a dynamic batch: use a static sequence length of at most "
            f"{MAX_STEPS} steps, which are then unrolled as with unroll=True; or use a static batch size and do not "
            "use int8"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:500] if lines else 'no reason given'}"


def _convert(conversion: Conversion, in_float: str | None = None) -> bytes:
    """Make a flatbuffer; an int8 one again where the quantizer's luck, not the model, left an operator in float.

    Of a split's outputs TFLite's quantizer visits one first, which one differs from run to run, and where nothing reads
    that one, the whole split stays float. An LSTM's first step has such a split for a batch of one: its state is zero,
    so its forget gate is folded away.

    Args:
        conversion: what to make.
        in_float: where the float flatbuffer goes that an int8 one is made of.
    """
    made = []
    for _ in range(_TRIES):
        artifact = _convert_once(conversion, in_float)
        if conversion.scheme != "int8" or not (left := count_half_read_float_splits(artifact)):
            return artifact
        made.append((left, artifact))
    return min(made)[1]


def _convert_once(conversion: Conversion, in_float: str | None) -> bytes:
    tf = load_tensorflow()
    saved_model = _saved_model(conversion)
    names = read_names(saved_model)
    converter = tf.lite.TFLiteConverter.from_saved_model(str(saved_model), signature_keys=[SIGNATURE])
    if conversion.scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if conversion.scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if conversion.scheme == "int8" and conversion.representative:
        theirs = {own: name for name, own in names.inputs.items()}
        rows = {theirs.get(name, name): values for name, values in conversion.representative.items()}
        converter.representative_dataset = lambda: _representative_rows(rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(conversion.io)
        if in_float is not None:
            _keep_float(converter, Path(in_float), names.inputs)
    try:
        artifact: bytes = converter.convert()
    except Exception as error:  # here, where the names of the layers are known
        raise ConversionError(_explain(error, names.layers)) from error
    return with_own_edges(artifact, names.inputs)


def _keep_float(converter: Any, path: Path, inputs: Mapping[str, str]) -> None:
    """Keep the float flatbuffer that the converter is about to calibrate: a float conversion makes the same."""
    quantize = converter._quantize

    def keep(result: bytes, *arguments: Any, **options: Any) -> bytes:
        path.write_bytes(with_own_edges(result, inputs))
        quantized: bytes = quantize(result, *arguments, **options)
        return quantized

    converter._quantize = keep


def _saved_model(conversion: Conversion) -> Path:
    source = Path(conversion.saved_model)
    if conversion.is_signature:
        return with_our_signature(source, Path(conversion.output).parent, conversion.batch)
    if source.suffix not in KERAS_SUFFIXES:
        return source
    if conversion.samples is not None:
        return export_gradients_again(source, conversion.samples)
    return export_again(source, conversion.batch)


def _representative_rows(arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, Mapping[str, NDArray[Any]]]]:
    for index in range(len(next(iter(arrays.values())))):
        yield SIGNATURE, {name: rows[index : index + 1] for name, rows in arrays.items()}
