"""Quantize: a Keras model becomes an int8 (or dynamic, float16, float32) flatbuffer with the signature "predict"."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import (
    SIGNATURE,
    FlatbufferSignature,
    float_operators,
    read_signatures,
    with_open_batch,
)
from litelambda.common.child_process import shared_folder
from litelambda.common.errors import ConversionError
from litelambda.conversion.converter import Conversion, ConverterCrashError, convert
from litelambda.conversion.crash_finder import find_crashing_layer
from litelambda.conversion.export import export
from litelambda.conversion.int4 import is_slower, layers_for_int4, to_int4, weight_bits
from litelambda.conversion.remedies import on_float
from litelambda.conversion.single_row import needs_one_row
from litelambda.keras_tools.backend import backend
from litelambda.recipe.sections import Quantize

_NOTES = {
    "dynamic": "int8 weights, float32 activations: quantize.scheme is 'dynamic'",
    "float16": "float16 weights, computed in float32: quantize.scheme is 'float16'",
    "float32": "not quantized: quantize.scheme is 'float32'",
}


@dataclass(frozen=True)
class Quantized:
    """A quantized model.

    Attributes:
        artifact: the flatbuffer to publish.
        float_artifact: the same model unquantized and uncompressed, to compare sizes with.
        in_float: the flatbuffer that it was quantized from.
        signature: its entry point.
        scheme: as in the recipe.
        io: dtype at the edges.
        float_operators: operators that compute in float.
        note: why they do, or None where none does.
        weight_bits: by layer, where some weights are int4; None where all have the scheme's own.
    """

    artifact: bytes
    float_artifact: bytes
    in_float: bytes
    signature: FlatbufferSignature
    scheme: str
    io: str
    float_operators: list[str]
    note: str | None
    weight_bits: dict[str, int] | None = None

    def to_json(self) -> dict[str, Any]:
        """The manifest's `quantization`."""
        bits = {"weight_bits": self.weight_bits} if self.weight_bits else {}
        described = {"scheme": self.scheme, "io": self.io, "float_ops": self.float_operators, "note": self.note}
        return {**described, **bits}


def quantize(
    model: Any, representative: Mapping[str, NDArray[Any]], settings: Quantize, original: Any = None
) -> Quantized:
    """Convert a model.

    Args:
        model: a Functional or Sequential Keras model.
        representative: rows of the training split per input name, to calibrate activations with.
        settings: the recipe's `quantize` section.
        original: the model before compression; its float size is what the artifact's is compared with.

    Raises:
        ConversionError: the model cannot be converted; the message names operators, or the layer that crashes.
    """
    words = [name for name, rows in representative.items() if rows.dtype.kind not in "buif"]
    if words and settings.scheme == "int8":
        raise ConversionError(
            f"input {words[0]!r} takes no numbers, so int8 cannot be calibrated: tokenize or look words up before the "
            'model and give it the numbers, or do not use int8: set quantize.scheme = "dynamic", or import without '
            "representative rows"
        )
    with tempfile.TemporaryDirectory(dir=shared_folder()) as scratch:
        folder = Path(scratch)
        models = [model] if original is None or original is model else [model, original]
        try:
            in_float, artifact, *originals = _flatbuffers(models, representative, settings, folder)
        except ConverterCrashError as error:
            if error.for_memory:
                raise
            raise ConversionError(f"{error}: {find_crashing_layer(model, settings, folder)}") from error
        if backend() == "tensorflow" and (needs_one_row(artifact) or needs_one_row(in_float)):
            with suppress(ConversionError):  # then the flatbuffers with an open batch are used
                in_float, artifact, *originals = _flatbuffers(models, representative, settings, folder, batch=1)
        bits = None
        if settings.int4 and settings.scheme == "int8":
            artifact, bits = _with_int4(model, artifact, in_float, representative, settings)
    operators = float_operators(artifact)
    return Quantized(
        artifact=artifact,
        float_artifact=originals[0] if originals else in_float,
        in_float=in_float,
        signature=with_open_batch(next(each for each in read_signatures(artifact) if each.key == SIGNATURE)),
        scheme=settings.scheme,
        io=settings.io,
        float_operators=operators,
        note=_note(settings.scheme, operators),
        weight_bits=bits,
    )


def _flatbuffers(
    models: Sequence[Any],
    representative: Mapping[str, NDArray[Any]],
    settings: Quantize,
    folder: Path,
    batch: int | None = None,
) -> list[bytes]:
    """Convert a model to float and as the settings say, and the one it was compressed from, if any, to float."""
    sources = [str(export(each, folder / f"model{index}-{batch}", batch)) for index, each in enumerate(models)]
    subject = f"the model {models[0].name!r}"
    plain = [Conversion(subject, source, f"{source}.tflite") for source in sources]
    quantized = Conversion(
        subject,
        sources[0],
        str(folder / "quantized.tflite"),
        scheme=settings.scheme,
        io=settings.io,
        representative=representative,
    )
    conversions = [plain[0], quantized, *plain[1:]]
    convert(conversions)
    return [Path(conversion.output).read_bytes() for conversion in conversions]


def _with_int4(
    model: Any, artifact: bytes, in_float: bytes, rows: Mapping[str, NDArray[Any]], settings: Quantize
) -> tuple[bytes, dict[str, int] | None]:
    """The artifact with int4 weights, and each layer's bits; the int8 artifact where "auto" finds int4 slower."""
    layers = layers_for_int4(model, in_float, settings.int4)
    if not layers:
        return artifact, None
    with_int4 = to_int4(in_float, layers, rows, settings.io)
    if settings.int4 == "auto" and is_slower(with_int4, artifact):
        return artifact, None
    return with_int4, weight_bits(model, layers)


def _note(scheme: str, in_float: list[str]) -> str | None:
    return explain_float(in_float) if scheme == "int8" else _NOTES[scheme]


def explain_float(operators: Sequence[str]) -> str | None:
    """Why operators of an int8 model compute in float, and what to change; None where none does."""
    if not operators:
        return None
    reason, advice = f"TFLite has no int8 kernel for {', '.join(operators)}: computed in float32", on_float(operators)
    return f"{reason}. What to change: {advice}" if advice else reason
