"""Reads a model as others made it: .tflite, .keras, .h5 or SavedModel, converted and quantized where it has to be.

Nothing of it is opened in this process: sources, the converter and the Interpreter have processes of their own.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from litelambda.artifact.flatbuffer import (
    SIGNATURE,
    FlatbufferSignature,
    FlatbufferTensor,
    float_operators,
    read_signatures,
    scheme_of,
    takes_sizes_at_run_time,
    with_open_batch,
)
from litelambda.artifact.reference import Reference, to_codes
from litelambda.artifact.reference_process import inspect_in_child
from litelambda.commands.import_preprocessing import from_metadata
from litelambda.common.array_files import write_arrays
from litelambda.common.errors import ConversionError, DataError, UsageError
from litelambda.conversion.converter import Conversion, ConverterCrashError, convert
from litelambda.conversion.quantize import explain_float
from litelambda.conversion.single_row import needs_one_row
from litelambda.evaluation.comparison import check_against_source, representative_runs, rows_of_a_run
from litelambda.evaluation.quantization_loss import MAX_DIFFERENCE, check_loss, measure_loss
from litelambda.evaluation.representative_rows import Rows, check_rows, halves, read_rows
from litelambda.evaluation.source_model import Answers, Described, Source
from litelambda.evaluation.verify import answered, runs_of
from litelambda.keras_tools.made_rows import Runs, made_runs
from litelambda.keras_tools.model_files import KERAS_SUFFIXES
from litelambda_serving.tensor import DTYPES

_STRINGS = (b"", b"a", b"text", "gr\u00fc\u00df".encode(), b"\xff\x00", b"longer " * 40)
_DEFAULT_SIGNATURES = (SIGNATURE, "serving_default")
_VERIFIED_ROWS = 32
_COMPARED_ROWS = 128


@dataclass(frozen=True)
class Imported:
    """A model from elsewhere as a flatbuffer that answers as its source does.

    Attributes:
        artifact: the flatbuffer to publish.
        float_bytes: size of the float flatbuffer.
        signature: its entry point.
        scheme: int8 or float32.
        io: dtype at the edges.
        float_operators: operators that compute in float.
        note: why they do, or None where none does.
        metrics: the manifest's: what was compared with what, and how far apart it is.
        rows: rows to verify it with, as it takes them.
        preprocessing: the manifest's, as the file itself tells.
        warnings: what a user should know.
    """

    artifact: bytes
    float_bytes: int
    signature: FlatbufferSignature
    scheme: str
    io: str
    float_operators: list[str]
    note: str | None
    metrics: dict[str, Any]
    rows: Rows
    preprocessing: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The manifest's `quantization`."""
        return {"scheme": self.scheme, "io": self.io, "float_ops": self.float_operators, "note": self.note}


@dataclass(frozen=True)
class Allowed:
    """What the user allows the quantized model to lose.

    Attributes:
        max_difference: of an output's range, by 99 % of its values.
        accept_loss: publish it however far it is off.
    """

    max_difference: float = MAX_DIFFERENCE
    accept_loss: bool = False


def read_model(path: Path, representative: Path | None, folder: Path, allowed: Allowed) -> Imported:
    """Read a model, make a flatbuffer of it, and compare that with the model's own answers.

    Args:
        path: a .tflite, .keras or .h5 file, or the folder of a SavedModel.
        representative: rows of data as the model will see it; with them the model is quantized to int8.
        folder: a scratch folder.
        allowed: what quantization may cost.

    Raises:
        UsageError: no such file, or of another kind.
        DataError: the representative rows do not fit the model's inputs, or say nothing.
        ConversionError: the model cannot be read or converted, or must not be published as it is.
        VerificationError: the float flatbuffer does not answer as the model itself does.
        GateError: the quantized one is too far off.
    """
    if not path.exists():
        raise UsageError(f"{path} does not exist")
    if path.is_dir() or path.suffix in KERAS_SUFFIXES:
        return _convert_source(path, representative, folder, allowed)
    if path.suffix != ".tflite":
        raise UsageError(f"{path}: expected a .tflite, .keras or .h5 file, or the folder of a SavedModel")
    if representative is not None:
        raise UsageError(
            f"{path} is converted already and cannot be quantized any more: import the .keras file or SavedModel "
            "it was made from, or leave --representative out"
        )
    return _read_tflite(path, folder)


def _read_tflite(path: Path, folder: Path) -> Imported:
    with path.open("rb") as file:
        if file.read(8)[4:] != b"TFL3":
            raise ConversionError(f"{path} is not a TFLite model: it lacks the identifier TFL3 at offset 4")
    found = inspect_in_child(path, folder)
    if found.refusals:
        raise ConversionError(f"{path} is refused: {'; '.join(found.refusals)}")
    signatures = {signature.key: signature for signature in read_signatures(path)}
    key = next((each for each in _DEFAULT_SIGNATURES if each in signatures), next(iter(signatures)))
    signature = with_open_batch(signatures[key])
    _check_tensors(signature)
    rows = random_rows(signature.inputs, _VERIFIED_ROWS)
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


@dataclass(frozen=True)
class _Calibration:
    """Representative rows, of which some calibrate the quantized model and the others are what it is judged on.

    Attributes:
        rows: all of them, by input name.
        used: numbers of those that calibrate.
        held_out: numbers of those that judge; the same where there are too few to part with any.
        warnings: what is odd about them.
    """

    rows: Rows
    used: list[int]
    held_out: list[int]
    warnings: list[str]

    @classmethod
    def read(cls, path: Path, described: Described, *, accept_loss: bool) -> _Calibration:
        rows = read_rows(path, described.inputs)
        warnings = check_rows(rows, accept_loss=accept_loss)
        return cls(rows, *halves(rows, rows_of_a_run(described.inputs)), warnings)

    def to_calibrate(self) -> Rows:
        return {name: values[self.used] for name, values in self.rows.items()}

    def to_json(self) -> dict[str, Any]:
        parted = self.held_out != self.used
        judged = "rows it was not calibrated with" if parted else "the calibration rows"
        return {"calibrated_on": len(self.used), "compared_on": judged}


def _convert_source(path: Path, representative: Path | None, folder: Path, allowed: Allowed) -> Imported:
    source = Source(path, folder)
    described = source.describe()
    _check_tensors(described)
    calibration = None
    if representative is not None:
        calibration = _Calibration.read(representative, described, accept_loss=allowed.accept_loss)
    runs, answers = _ask(source, described, calibration)
    in_float, made = _flatbuffers(path, calibration.to_calibrate() if calibration else None, folder)
    metrics: dict[str, Any] = {
        "float": {},
        "quantized": {},
        "source": "the SavedModel's signature" if path.is_dir() else "Keras' predict",
        "float_difference": _compare_float(in_float, answers, runs, described, source),
        "rows_compared": len(runs.names),
    }
    signature = with_open_batch(next(each for each in read_signatures(made) if each.key == SIGNATURE))
    _check_tensors(signature)
    if calibration:
        metrics |= _judge(made, answers, runs, allowed) | calibration.to_json()
    operators = float_operators(made)
    return Imported(
        artifact=made.read_bytes(),
        float_bytes=in_float.stat().st_size,
        signature=signature,
        scheme="int8" if calibration else "float32",
        io="float32",
        float_operators=operators,
        note=explain_float(operators) if calibration else "not quantized: imported without representative rows",
        metrics=metrics,
        rows=_rows_to_verify(signature, calibration.rows if calibration else None),
        preprocessing={},
        warnings=tuple(calibration.warnings) if calibration else (),
    )


def _ask(source: Source, described: Described, calibration: _Calibration | None) -> tuple[Runs, Answers]:
    """What the source answers to made rows and to those held out; runs that it refuses are left out.

    Raises:
        DataError: it refuses a row that was given.
    """
    runs = made_runs(described.inputs)
    num_made = len(runs.names)
    if calibration:
        held_out = calibration.held_out[:_COMPARED_ROWS]
        runs = runs.joined(representative_runs(calibration.rows, described.inputs, held_out))
    answers = source.answer(runs.inputs)
    if bad := next((index for index in answers.refused if index >= num_made), None):
        raise DataError(f"the model itself refuses {runs.names[bad]}: {answers.refused[bad]}")
    return runs.take(answers.answered), answers


def _compare_float(in_float: Path, answers: Answers, runs: Runs, described: Described, source: Source) -> float:
    found = Reference(in_float).run_each(runs.inputs)
    return check_against_source(answers, found, runs, described.precision, lambda: source.answer_exactly(runs.inputs))


def _judge(artifact: Path, answers: Answers, runs: Runs, allowed: Allowed) -> dict[str, Any]:
    """The gate: the int8 artifact against the source on the rows held back."""
    chosen = [index for index, kind in enumerate(runs.kinds) if kind == "representative"]
    found = Reference(artifact).run_each(runs.take(chosen).inputs)
    loss = measure_loss({name: values[chosen] for name, values in answers.outputs.items()}, found)
    if not allowed.accept_loss:
        check_loss(loss, allowed.max_difference)
    return loss.to_json() | {"accepted_loss": allowed.accept_loss}


def _flatbuffers(path: Path, rows: Rows | None, folder: Path) -> tuple[Path, Path]:
    """The float flatbuffer, and the one to publish: the same without rows."""
    subject = f"the SavedModel {path}" if path.is_dir() else f"the model {path.name}"
    source = path
    if not path.is_dir():  # its SavedModel is written next to it
        source = folder / f"source{path.suffix}"
        source.symlink_to(path.resolve())
    plain = Conversion(subject, str(source), str(folder / "float.tflite"), is_signature=path.is_dir())
    jobs = [plain]
    if rows is not None:
        write_arrays(folder / "representative.npz", rows)
        jobs.append(
            replace(
                plain, output=str(folder / "int8.tflite"), scheme="int8",
                representative=str(folder / "representative.npz"),
            )
        )  # fmt: skip
    try:
        convert(jobs, folder)
    except ConverterCrashError as error:
        if error.for_memory or rows is None:
            raise
        raise ConversionError(f"{error}. Import it without --representative, as float32") from error
    if any(_needs_one_row(Path(job.output), folder) for job in jobs):
        with suppress(ConversionError):  # the flatbuffers with an open batch will do
            one_row = [replace(job, output=f"{job.output}.one", batch=1) for job in jobs]
            convert(one_row, folder)
            jobs = one_row
    return Path(jobs[0].output), Path(jobs[-1].output)


def _needs_one_row(artifact: Path, folder: Path) -> bool:
    return takes_sizes_at_run_time(artifact) and needs_one_row(artifact.read_bytes(), folder)


def _check_tensors(model: FlatbufferSignature | Described) -> None:
    tensors: list[Any] = [*model.inputs, *(model.outputs if isinstance(model, FlatbufferSignature) else ())]
    for tensor in tensors:
        if tensor.dtype not in DTYPES:
            raise ConversionError(
                f"{tensor.name!r} is of the type {tensor.dtype}, which has no place in a request: use float32 when "
                "exporting the model"
            )
        if any(size is None or size < 0 for size in tensor.shape[1:]):
            raise ConversionError(
                f"{tensor.name!r} has the shape {list(tensor.shape)}: only the first size, the batch, may be open. "
                "Use static sizes for the others when exporting the model"
            )


def _rows_to_verify(signature: FlatbufferSignature, rows: Rows | None) -> Rows:
    if rows is None:
        return random_rows(signature.inputs, _VERIFIED_ROWS)
    return {t.name: to_codes(rows[t.name][:_VERIFIED_ROWS], t) for t in signature.inputs}


def random_rows(inputs: tuple[FlatbufferTensor, ...], count: int) -> Rows:
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
