"""One job, from its input to its committed output.

Exactly once: the output's name tells input, version and model, and it appears whole and only if there is none yet.
Order of writing: bad rows, then the summary, then the predictions. Whoever sees predictions sees all of it; whoever
comes again sees them with one HEAD and is done.
"""

from __future__ import annotations

import time
from collections import deque
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from litelambda_serving.errors import StoreConflictError
from litelambda_serving.objects import objects_for
from litelambda_serving.objects.base import ObjectInfo, part_bytes_for
from litelambda_serving.objects.errors import LostUploadError
from litelambda_serving.scoring.errors import JobError, OutputExistsError, TooManyBadRowsError, reading_input
from litelambda_serving.scoring.formats import open_reader, open_writer
from litelambda_serving.scoring.formats.base import RowSchema
from litelambda_serving.scoring.inputs import find_input
from litelambda_serving.scoring.job import Job, Outputs
from litelambda_serving.scoring.running.checkpoint import Checkpoint, checkpoint_of, write_checkpoint
from litelambda_serving.scoring.running.processor import WorkerSpec
from litelambda_serving.scoring.running.summary import Counts, make_summary, utc_now
from litelambda_serving.scoring.running.workers import Workers

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from concurrent.futures import Future

    from litelambda_serving.custom_code import CustomCode
    from litelambda_serving.objects.base import Upload, UploadState
    from litelambda_serving.scoring.formats.base import Chunk, Reader, Writer
    from litelambda_serving.scoring.models import LoadedModel, ModelSource
    from litelambda_serving.scoring.running.processor import Scored

    Progress = Callable[[int, int, int], None]

__all__ = ["Outcome", "run_job"]

_MARGIN_SHARE, _MAX_MARGIN_S = 0.15, 20.0
_SURELY_TOO_MANY = 10_000


@dataclass
class Outcome:
    """How a job ended.

    Attributes:
        status: "done", "already_done" (another run, or an earlier try of this one, committed it) or "continues" (from
            its checkpoint).
        outputs: where everything is.
        job: the job, pinned to one version of its input and one of its model: what to continue with.
        summary: the run summary, None unless done by this run.
    """

    status: str
    outputs: Outputs
    job: Job
    summary: dict[str, Any] | None = None


def run_job(
    job: Job,
    models: ModelSource,
    *,
    workers: int = 1,
    time_left: Callable[[], float] | None = None,
    progress: Progress | None = None,
    replace: bool = False,
    custom_code: CustomCode | None = None,
) -> Outcome:
    """Do a job, or resume one that was stopped.

    Args:
        job: which.
        models: where its model comes from.
        workers: cores to use.
        time_left: seconds until this process will be stopped; None when it will not be.
        progress: called with the bytes done, all bytes and the rows, before the output is begun and after each chunk;
            what it raises ends the job.
        replace: write over an output that is there.
        custom_code: the function's own, which runs before and after the model.

    Raises:
        InputError: the input cannot be scored, however often it is tried.
        JobError: the job makes no sense.
        ServingError: a failure that another try may not meet.
    """
    if not job.model:
        raise JobError("the job names no model")
    pin = models.pin(job.model)
    info = None if job.version else find_input(job)
    if info is not None:
        job = job.pinned(info, job.model)
    outputs = Outputs(job, pin.digest)
    objects = objects_for(outputs.predictions)
    if not replace and _is_done(outputs):
        return Outcome("already_done", outputs, job)
    info = info or find_input(job)
    job = job.pinned(info, f"{pin.name}:{pin.version}")
    checkpoint = checkpoint_of(job, info, pin.digest, outputs) if time_left is not None else None
    run = _Run(job, info, models.load(pin), outputs, _RunOptions(workers, time_left, progress, replace, custom_code))
    try:
        return run.run(checkpoint)
    except (StoreConflictError, LostUploadError) as error:
        is_done = _is_done(outputs, must_be_known=outputs.is_named)
        if (is_done and checkpoint is not None) or isinstance(error, LostUploadError):
            objects.delete(outputs.checkpoint)  # nothing can be resumed from there
        if not is_done:
            raise
        return Outcome("already_done", outputs, job)


def _is_done(outputs: Outputs, *, must_be_known: bool = False) -> bool:
    """Whether the output is there, by this job: another run of it, or an earlier try whose answer was lost.

    Raises:
        OutputExistsError: the caller named an output that is another job's.
    """
    found = objects_for(outputs.predictions).head(outputs.predictions)
    if found is None:
        return False
    if outputs.is_named and found.owner and found.owner != outputs.identity:
        raise OutputExistsError(
            f"{outputs.predictions} exists already, and is the output of another job: name another output"
        )
    return bool(found.owner) or not must_be_known


@dataclass
class _RunOptions:
    """What a run may use; see `run_job`."""

    workers: int
    time_left: Callable[[], float] | None
    progress: Progress | None
    replace: bool
    custom_code: CustomCode | None = None


class _Run:
    """One invocation's part of a job."""

    def __init__(self, job: Job, info: ObjectInfo, model: LoadedModel, outputs: Outputs, options: _RunOptions) -> None:
        self._job, self._info, self._model, self._outputs = job, info, model, outputs
        self._options = options
        self._objects = objects_for(outputs.predictions)
        self._part_bytes = part_bytes_for(info.size)
        self._counts = Counts(started=utc_now())
        self._position: dict[str, Any] | None = None
        self._errors: Upload | None = None
        self._margin = min(_MARGIN_SHARE * options.time_left(), _MAX_MARGIN_S) if options.time_left else 0.0
        self._slowest = 0.0

    def run(self, checkpoint: Checkpoint | None) -> Outcome:
        """Score until the end of the input or of the time."""
        started = time.monotonic()
        schema = RowSchema.of(
            self._model.manifest,
            self._model.assets,
            prepared=self._job.prepared,
            custom_code=self._options.custom_code,
        )
        writer = open_writer(self._job, schema)
        with reading_input():
            reader = open_reader(self._job, self._info, schema)
        self._form = reader.form
        with closing(reader):
            return self._read(reader, writer, checkpoint, started)

    def _read(self, reader: Reader, writer: Writer, checkpoint: Checkpoint | None, started: float) -> Outcome:
        if self._options.progress:
            self._options.progress(0, reader.total_bytes, 0)
        begin = writer.begin(reader.decoder)
        self._restore(checkpoint, writer)
        if checkpoint is None:
            self._predictions.write(begin)
        workers = self._make_workers(reader, writer)
        try:
            finished = self._score(reader, workers)
            self._counts.seconds += time.monotonic() - started
            self._counts.invocations += 1
            if not finished:
                workers.close()
                return self._suspend(checkpoint)
            self._check_bad_rows()
            return self._commit(writer, checkpoint)
        except BaseException:
            self._predictions.abort()
            if self._errors is not None:
                self._errors.abort()
            raise
        finally:
            workers.close()

    def _restore(self, checkpoint: Checkpoint | None, writer: Writer) -> None:
        self._predictions: Upload = self._objects.upload(
            self._outputs.predictions,
            self._part_bytes,
            checkpoint.predictions if checkpoint else None,
            hold_head=writer.holds_head,
            replace=self._options.replace,
            owner=self._outputs.identity,
        )
        if checkpoint is not None:
            self._counts = Counts(**checkpoint.counts)
            self._position = checkpoint.position
            if checkpoint.errors is not None:
                self._errors = self._open_errors(checkpoint.errors)

    def _open_errors(self, state: UploadState | None = None) -> Upload:
        return self._objects.upload(self._outputs.errors, self._part_bytes, state, replace=True)

    def _make_workers(self, reader: Reader, writer: Writer) -> Workers:
        model, job = self._model, self._job
        spec = WorkerSpec(model.artifact, model.manifest, reader.decoder, writer)
        if job.explain is not None:
            spec.assets, spec.explain, spec.prepared = model.assets, job.explain, job.prepared
        # Parsing text holds the interpreter's lock; arrays and images are worked on without it.
        return Workers(spec, self._options.workers, processes=reader.decoder.id_name == "line")

    def _score(self, reader: Reader, workers: Workers) -> bool:
        """Chunks to the workers, what comes back in order to the outputs; false when time ran out before the input."""
        in_flight: deque[Future[Scored]] = deque()
        finished = True
        with closing(_chunks(reader, self._position)) as chunks:
            for number, chunk in enumerate(chunks):
                limit = 2 * workers.count
                if number and self._must_stop(limit):
                    finished = False
                    break
                in_flight.append(workers.submit(chunk))
                while len(in_flight) > limit or (in_flight and in_flight[0].done()):
                    self._take(in_flight.popleft().result(), reader, workers)
            while in_flight:
                self._take(in_flight.popleft().result(), reader, workers)
        return finished

    def _must_stop(self, limit: int) -> bool:
        """Whether what is in flight may just be finished, and no more."""
        time_left = self._options.time_left
        return time_left is not None and time_left() < self._margin + self._slowest * (limit + 1)

    def _take(self, scored: Scored, reader: Reader, workers: Workers) -> None:
        self._predictions.write(scored.output)
        if scored.errors:
            if self._errors is None:
                self._errors = self._open_errors()
            self._errors.write(scored.errors)
        self._counts.add(scored)
        self._position = scored.position
        self._slowest = max(self._slowest, scored.seconds)
        workers.note(scored.progress_bytes, reader.total_bytes)
        if self._options.progress:
            self._options.progress(scored.progress_bytes, reader.total_bytes, self._counts.rows_in)
        if self._counts.rows_bad >= _SURELY_TOO_MANY:
            # Twice what is left, if it were all good, would not make the share tolerable: stop reading.
            share_done = max(scored.progress_bytes / max(reader.total_bytes, 1), 1e-6)
            if self._counts.rows_bad > self._job.tolerated_bad * 2 * self._counts.rows_in / share_done:
                self._check_bad_rows()

    def _check_bad_rows(self) -> None:
        counts = self._counts
        if counts.rows_bad > self._job.tolerated_bad * counts.rows_in:
            if self._errors is not None:
                self._errors.commit()
                self._errors = None
            raise TooManyBadRowsError(
                f"{counts.rows_bad} of {counts.rows_in} rows are bad, tolerated is a share of "
                f"{self._job.tolerated_bad:g}. What is wrong with each: {self._outputs.errors}"
            )

    def _commit(self, writer: Writer, checkpoint: Checkpoint | None) -> Outcome:
        if self._errors is not None:
            self._errors.commit()
        summary = make_summary(self._job, self._info, self._model, self._outputs, self._counts, self._position)
        if self._form:
            summary["input"]["form"] = self._form
        document = orjson.dumps(summary, option=orjson.OPT_INDENT_2) + b"\n"
        self._objects.put(self._outputs.summary, document)
        self._predictions.commit(writer.head(self._counts.rows_in))
        if checkpoint is not None:
            self._objects.delete(self._outputs.checkpoint)
        return Outcome("done", self._outputs, self._job, summary)

    def _suspend(self, checkpoint: Checkpoint | None) -> Outcome:
        """Leave a checkpoint; if another invocation left one meanwhile, that one counts."""
        mine = Checkpoint(
            sequence=checkpoint.sequence + 1 if checkpoint else 1,
            job=self._job.to_dict(),
            model=self._model.pin.to_dict(),
            input_tag=self._info.tag,
            position=self._position or {},
            counts=self._counts.to_dict(),
            predictions=self._predictions.suspend(),
            errors=self._errors.suspend() if self._errors is not None else None,
            tag=checkpoint.tag if checkpoint else "",
        )
        if not write_checkpoint(self._objects, self._outputs.checkpoint, mine):
            if checkpoint is None:
                self._predictions.abort()
            if self._objects.head(self._outputs.predictions) is not None:
                return Outcome("already_done", self._outputs, self._job)
        return Outcome("continues", self._outputs, self._job)


def _chunks(reader: Reader, position: dict[str, Any] | None) -> Generator[Chunk]:
    with reading_input():
        yield from reader.chunks(position)
