"""Converts a .keras or .h5 file or a SavedModel, quantizes it where there are rows, and compares it with its source.

Nothing of it is opened in this process: sources, the converter and the Interpreter have processes of their own.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from litelambda.artifact.flatbuffer import (
    SIGNATURE,
    FlatbufferSignature,
    float_operators,
    read_signatures,
    takes_sizes_at_run_time,
    with_open_batch,
)
from litelambda.artifact.reference import Reference, to_codes
from litelambda.commands.imported import VERIFIED_ROWS, Imported, check_tensors, random_rows
from litelambda.common.errors import ConversionError, DataError
from litelambda.conversion.converter import Conversion, ConverterCrashError, convert
from litelambda.conversion.quantize import explain_float
from litelambda.conversion.single_row import needs_one_row
from litelambda.evaluation.comparison import check_against_source, representative_runs, rows_of_a_run
from litelambda.evaluation.loaded_sources import Described
from litelambda.evaluation.quantization_loss import MAX_DIFFERENCE, check_loss, measure_loss
from litelambda.evaluation.representative_rows import Rows, check_rows, halves, read_rows
from litelambda.evaluation.source_model import SourceModel
from litelambda.evaluation.source_process import Answers
from litelambda.keras_tools.made_rows import Runs, made_runs

_COMPARED_ROWS = 128


@dataclass(frozen=True)
class Allowed:
    """What the user allows the quantized model to lose.

    Attributes:
        max_difference: of an output's range, by 99 % of its values.
        accept_loss: publish it however far it is off.
    """

    max_difference: float = MAX_DIFFERENCE
    accept_loss: bool = False


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


def convert_source(path: Path, representative: Path | None, folder: Path, allowed: Allowed) -> Imported:
    """Convert a model to a flatbuffer that answers as the model does; see `read_model`, which says what is raised."""
    source = SourceModel(path)
    described = source.describe()
    check_tensors(described)
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
    check_tensors(signature)
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
        representative=calibration.rows if calibration else None,
    )


def _ask(source: SourceModel, described: Described, calibration: _Calibration | None) -> tuple[Runs, Answers]:
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


def _compare_float(in_float: Path, answers: Answers, runs: Runs, described: Described, source: SourceModel) -> float:
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
        jobs.append(replace(plain, output=str(folder / "int8.tflite"), scheme="int8", representative=rows))
    try:
        convert(jobs)
    except ConverterCrashError as error:
        if error.for_memory or rows is None:
            raise
        raise ConversionError(f"{error}. Import it without --representative, as float32") from error
    if any(_needs_one_row(Path(job.output)) for job in jobs):
        with suppress(ConversionError):  # the flatbuffers with an open batch will do
            one_row = [replace(job, output=f"{job.output}.one", batch=1) for job in jobs]
            convert(one_row)
            jobs = one_row
    return Path(jobs[0].output), Path(jobs[-1].output)


def _needs_one_row(artifact: Path) -> bool:
    return takes_sizes_at_run_time(artifact) and needs_one_row(artifact.read_bytes())


def _rows_to_verify(signature: FlatbufferSignature, rows: Rows | None) -> Rows:
    if rows is None:
        return random_rows(signature.inputs, VERIFIED_ROWS)
    return {t.name: to_codes(rows[t.name][:VERIFIED_ROWS], t) for t in signature.inputs}
