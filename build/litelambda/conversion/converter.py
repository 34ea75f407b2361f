"""The TFLite converter in a process of its own: a model that crashes it becomes an error, not a crash of the build.

A file lists the conversions; the child notes in another beside it, "progress", which one it is at. It knows SavedModels
and arrays, not Keras; what was trained on JAX it has made one first.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from litelambda.artifact.flatbuffer import count_half_read_float_splits
from litelambda.artifact.flatbuffer_edges import read_names, with_own_edges
from litelambda.common.errors import ConversionError
from litelambda.common.processes import describe_exit, lacked_memory
from litelambda.conversion.converter_process import ConverterProcess
from litelambda.conversion.remedies import layers_with, on_missing
from litelambda.conversion.unroll import MAX_STEPS
from litelambda.evaluation.source_answers import KERAS_SUFFIXES
from litelambda.keras_tools.backend import load_tensorflow

KERAS_SUFFIX = ".keras"
launch: Callable[[Path], subprocess.CompletedProcess[str]] = ConverterProcess().run
"""How a file of jobs gets to a child."""

_MISSING = re.compile(r"^(?:TF Select|Custom) ops: (.+)$", re.MULTILINE)
_TRIES = 8  # of an int8 conversion, see _convert: each leaves a split in float with a chance of one in four
SIGNATURE = "predict"  # not "serve": a SavedModel endpoint of that name silently drops the others


@dataclass(frozen=True)
class Conversion:
    """One flatbuffer to make.

    Attributes:
        subject: what is converted, for messages.
        saved_model: folder of the SavedModel, with the signature "predict"; or a .keras file from `export`.
        output: where the flatbuffer goes.
        scheme: int8, dynamic, float16 or float32.
        io: dtype at the edges of an int8 model.
        representative: .npz with calibration rows, an array per input; needed by int8.
        input_names: the inputs that those arrays are for, in their order.
        batch: the only number of rows that a Keras file's model is made for; None for any.
        is_signature: the SavedModel is from elsewhere, and its default signature is to be called "predict" first.
    """

    subject: str
    saved_model: str
    output: str
    scheme: str = "float32"
    io: str = "float32"
    representative: str | None = None
    input_names: tuple[str, ...] = ()
    batch: int | None = None
    is_signature: bool = False


class ConverterCrashError(ConversionError):
    """The converter's process died.

    Attributes:
        subject: the conversion it died at.
        for_memory: it was killed, or gave up, most likely for want of memory; no layer is to blame.
    """

    def __init__(self, subject: str, returncode: int, last_line: str = "") -> None:
        self.subject = subject
        self.for_memory = lacked_memory(returncode, last_line)
        reason = "for want of memory: more of it, or a smaller model, is needed" if self.for_memory else last_line
        ended = f"TensorFlow's converter crashed ({describe_exit(returncode)}) on {subject}"
        super().__init__(f"{ended}, {reason}" if reason else ended)


def convert(conversions: Sequence[Conversion], folder: Path) -> None:
    """Make flatbuffers, one after the other, in a child process.

    Args:
        conversions: what to make.
        folder: a scratch folder for the child's job and progress files.

    Raises:
        ConverterCrashError: the child died; its `subject` tells where.
        ConversionError: the converter refused a model; the message names the operators.
    """
    jobs, progress, failure = folder / "jobs.json", folder / "progress", folder / "failure"
    failure.unlink(missing_ok=True)  # an earlier list's
    jobs.write_text(json.dumps([asdict(conversion) for conversion in conversions]))
    progress.write_text(conversions[0].subject)
    child = launch(jobs.absolute())
    if child.returncode == 0:
        return
    subject = progress.read_text()
    if failure.exists():
        raise ConversionError(f"{subject} cannot be converted: {failure.read_text()}")
    raise ConverterCrashError(subject, child.returncode, _last_words(child.stderr))


def _last_words(stderr: str) -> str:
    """What a crashed process said of it: the line of an exception that nobody caught, or nothing."""
    found = re.findall(r"^  what\(\):\s+(.+)$|^(MemoryError.*)$", stderr, re.MULTILINE)
    return (found[-1][0] or found[-1][1])[:300] if found else ""


def _explain(error: Exception, layers: Sequence[str] = ()) -> str:
    """The converter's reason in a sentence: the operators it lacks, and whose, or its first line."""
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
            "a recurrent layer loops over a dynamic batch. Fix the length of its sequence: up to "
            f"{MAX_STEPS} steps are then unrolled, as with unroll=True; or fix the batch and leave int8"
        )
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:500] if lines else 'no reason given'}"


def run_jobs(jobs: Path) -> int:
    """In the child: make every flatbuffer of a list of jobs, up to the first that fails.

    Args:
        jobs: the file that `convert` wrote.

    Returns:
        0, or 1 where one failed; the file "failure" says why.
    """
    made: dict[tuple[str, str], str] = {}
    conversions = [Conversion(**fields) for fields in json.loads(jobs.read_text())]
    on_the_way = {_kind(each, "float32"): each for each in conversions if each.representative and each.scheme == "int8"}
    in_float = {_kind(each, "float32"): each.output for each in conversions if each.scheme == "float32"}
    for conversion in conversions:
        (jobs.parent / "progress").write_text(conversion.subject)
        kind = _kind(conversion, conversion.scheme)
        if kind in on_the_way:  # int8 is made of the float flatbuffer, so the converter makes both at once
            continue
        if kind in made and conversion.scheme != "int8":  # whose edges and calibration may differ
            shutil.copyfile(made[kind], conversion.output)
            continue
        try:
            artifact = _convert(conversion, in_float.get(_kind(conversion, "float32")))
        except Exception as error:  # noqa: BLE001 - whatever the converter raises is the parent's to report
            (jobs.parent / "failure").write_text(_explain(error))
            return 1
        Path(conversion.output).write_bytes(artifact)
        made[kind] = conversion.output
    return 0


def _kind(conversion: Conversion, scheme: str) -> tuple[str, str]:
    return f"{conversion.saved_model} {conversion.batch}", scheme


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
    names = read_names(Path(saved_model))
    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=[SIGNATURE])
    if conversion.scheme != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if conversion.scheme == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if conversion.scheme == "int8" and conversion.representative:
        theirs = {own: name for name, own in names.inputs.items()}
        with np.load(conversion.representative) as arrays:
            given = [theirs.get(name, name) for name in conversion.input_names]
            rows = dict(zip(given, arrays.values(), strict=True))
        converter.representative_dataset = lambda: _representative_rows(rows)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.as_dtype(conversion.io)
        if in_float is not None:
            _keep_float(converter, Path(in_float), names.inputs)
    try:
        artifact: bytes = converter.convert()
    except Exception as error:  # whatever it raises, only here it is known whose layers they are
        raise ConversionError(_explain(error, names.layers)) from error
    return with_own_edges(artifact, names.inputs)


def _keep_float(converter: Any, path: Path, inputs: Mapping[str, str]) -> None:
    """Write down the float flatbuffer that the converter is about to calibrate: it is what a float conversion makes."""
    quantize = converter._quantize

    def keep(result: bytes, *arguments: Any, **options: Any) -> bytes:
        path.write_bytes(with_own_edges(result, inputs))
        quantized: bytes = quantize(result, *arguments, **options)
        return quantized

    converter._quantize = keep


def _saved_model(conversion: Conversion) -> str:
    source = Path(conversion.saved_model)
    if conversion.is_signature:
        from litelambda.conversion.saved_model_signature import with_our_signature

        return str(with_our_signature(source, Path(conversion.output).parent))
    if source.suffix not in KERAS_SUFFIXES:
        return str(source)
    from litelambda.conversion.export import export_again

    return str(export_again(source, conversion.batch))


def _representative_rows(arrays: Mapping[str, NDArray[Any]]) -> Iterator[tuple[str, Mapping[str, NDArray[Any]]]]:
    for index in range(len(next(iter(arrays.values())))):
        yield SIGNATURE, {name: rows[index : index + 1] for name, rows in arrays.items()}
