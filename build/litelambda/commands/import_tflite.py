"""Reads a .tflite file, which is published byte for byte, in a process of its own."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from litelambda.artifact.flatbuffer import (
    SIGNATURE,
    FlatbufferSignature,
    read_signatures,
    scheme_of,
    with_open_batch,
)
from litelambda.artifact.reference import Reference
from litelambda.artifact.reference_process import inspect_in_child
from litelambda.commands.import_preprocessing import from_metadata
from litelambda.commands.imported import VERIFIED_ROWS, Imported, check_tensors, random_rows
from litelambda.common.errors import ConversionError
from litelambda.evaluation.representative_rows import Rows
from litelambda.evaluation.verify import answered, runs_of

_DEFAULT_SIGNATURES = (SIGNATURE, "serving_default")


def read_tflite(path: Path) -> Imported:
    """Check a file that is converted already.

    Args:
        path: the .tflite file.

    Raises:
        ConversionError: it cannot be read, or must not be published as it is.
    """
    with path.open("rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise ConversionError(f"{path} is not a TFLite model: it lacks the identifier TFL3 at offset 4")
    found = inspect_in_child(path.absolute())
    if found.refusals:
        raise ConversionError(f"{path} is refused: {'; '.join(found.refusals)}")
    signatures = {signature.key: signature for signature in read_signatures(path)}
    key = next((each for each in _DEFAULT_SIGNATURES if each in signatures), next(iter(signatures)))
    signature = with_open_batch(signatures[key])
    check_tensors(signature)
    rows = random_rows(signature.inputs, VERIFIED_ROWS)
    _check_repeats(path, key, signatures[key], rows)
    names = ", ".join(found.float_operators)
    preprocessing, warnings = from_metadata(found.normalization, signature.inputs)
    return Imported(
        artifact=path.read_bytes(),
        float_bytes=path.stat().st_size,
        signature=signature,
        scheme=scheme_of(path),
        io=_io(signature),
        float_operators=found.float_operators,
        note=f"imported as it is; {names} compute in float" if names else "imported as it is",
        metrics={"float": {}, "quantized": {}, "source": "the .tflite itself, published byte for byte"},
        rows=rows,
        preprocessing=preprocessing,
        warnings=warnings,
    )


def _check_repeats(path: Path, key: str, signature: FlatbufferSignature, rows: Rows) -> None:
    """Refuse a flatbuffer that gives equal rows different answers, or none that is a number."""
    reference = Reference(path, key)
    runs, first = answered(reference, runs_of(signature, rows))
    second = reference.run(runs, None)
    for name, values in first.items():
        equal_nan = values.dtype.kind == "f"
        if not np.array_equal(values, second[name], equal_nan=equal_nan):
            raise ConversionError(
                f"{path} gives different answers for equal rows (output {name!r}): it keeps state or draws random "
                "numbers. Export it without, with training=False"
            )
        if equal_nan and values.size and np.isnan(values).all():
            raise ConversionError(f"{path} answers NaN for every row (output {name!r}): its weights have diverged")


def _io(signature: FlatbufferSignature) -> str:
    """Dtype at the edges; "float32" stands for everything that no scheme quantizes."""
    dtype = signature.inputs[0].dtype
    return dtype if dtype in ("int8", "uint8") else "float32"
