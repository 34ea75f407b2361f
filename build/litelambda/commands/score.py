"""Scoring a file, or all of a prefix, on this machine: the batch function's own code."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.commands.local_function import custom_code_path
from litelambda.common.aws import export_credentials
from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.common.interrupts import hold, interrupts_noted
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda.common.progress import Reporter, Stage
from litelambda.common.wording import counted
from litelambda.store.checks import check_store_exists, choices_named
from litelambda_serving.custom_code import CustomCode
from litelambda_serving.objects import to_url
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.format_names import OUTPUT_FORMATS
from litelambda_serving.scoring.job import DEFAULT_TOLERATED_BAD, Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from litelambda_serving.scoring.running.workers import available_cores

__all__ = ["ScoreError", "ScoreResult", "make_job", "score"]


class ScoreError(LitelambdaError):
    """A job could not be done."""


@dataclass(frozen=True)
class ScoreResult:
    """What was scored, and where it lies.

    Attributes:
        model: the model's name.
        version: its version.
        rows_in: rows that were read.
        rows_out: rows that were scored.
        rows_bad: rows that could not be.
        output: URL of the predictions; of a run on AWS the prefix of its parts.
        errors: URL of what is wrong with each bad row, None where all are good.
        summary: the whole run summary, as it lies beside the predictions.
    """

    model: str
    version: int
    rows_in: int
    rows_out: int
    rows_bad: int
    output: str
    errors: str | None
    summary: Mapping[str, Any]

    @classmethod
    def of(cls, summary: Mapping[str, Any]) -> ScoreResult:
        """Read a run summary."""
        return cls(
            model=summary["model"]["name"],
            version=summary["model"]["version"],
            rows_in=summary["rows_in"],
            rows_out=summary["rows_out"],
            rows_bad=summary["rows_bad"],
            output=summary["output"]["url"],
            errors=summary["errors"] if summary["rows_bad"] else None,
            summary=summary,
        )

    def to_json(self) -> dict[str, Any]:
        """The document that `litelambda score --json` prints."""
        return dict(self.summary)

    def describe(self) -> str:
        """The same for a person, in a few lines."""
        scored = f"{self.rows_out:,} of {counted(self.rows_in, 'row')} scored"
        num_shards = self.summary["output"].get("num_shards")
        took = f"{self.summary['seconds']:.1f} s" if num_shards is None else counted(num_shards, "shard")
        lines = [f"{scored} by {self.model} version {self.version} in {took}", f"predictions: {self.output}"]
        if self.rows_bad:
            lines.append(f"bad rows: {self.rows_bad:,}, see {self.errors}")
        if failed := self.summary.get("failed"):
            lines.append(f"failed shards: {failed:,}, see {self.summary['summary']}")
        return "\n".join(lines)


def score(  # noqa: PLR0913 - all but the first two are named by the caller
    source: str | Path,
    output: str | Path,
    *,
    model: str,
    store: str | Path = DEFAULT_STORE,
    workers: int = 0,
    force: bool = False,
    input_format: str = "",
    output_format: str = "",
    passthrough: Sequence[str] | None = None,
    tolerate: float = DEFAULT_TOLERATED_BAD,
    resize: bool = False,
    prepared: bool = False,
    explain: int | None = None,
    code: str | Path | None = None,
    reporter: Reporter | None = None,
) -> ScoreResult:
    """Score a file, or all files below a prefix, on this machine.

    Args:
        source: path or `s3://` URL of .jsonl, .csv, .parquet, .npy, .npz (or .gz), or a prefix, which ends with "/".
        output: path or `s3://` URL that ends with .jsonl, .csv or .npy, or a prefix.
        model: `NAME`, `NAME@ALIAS` or `NAME:VERSION`.
        store: where the model is: a folder, or `s3://bucket/prefix`.
        workers: cores to use, 0 for all.
        force: write over an output that exists.
        input_format: jsonl, csv, parquet, npy, npz or images; "" takes what the ending says.
        output_format: jsonl, csv or npy; "" takes what the ending says.
        passthrough: fields that the output repeats; None for all except the inputs.
        tolerate: share of bad rows to accept.
        resize: resize images that do not have the model's size.
        prepared: the rows are the model's own values, not raw ones that its preprocessing takes.
        explain: how many of each row's strongest attributions the output has; None for none.
        code: a file with `preprocess`, `postprocess` or both, which run before and after the model.
        reporter: told how far the job is.

    Returns:
        How many rows were scored, and where the predictions lie.

    Raises:
        UsageError: the arguments contradict each other.
        ScoreError: the output exists.
        ServingError: the input or the model cannot be used.

    Example::

        from litelambda import score

        result = score("rows.npy", "predictions.jsonl", model="fruit@latest", store="models")
        print(f"{result.rows_out} rows by version {result.version} in {result.output}")
    """
    job = make_job(
        source,
        output,
        model=model,
        input_format=input_format,
        output_format=output_format,
        passthrough=passthrough,
        tolerate=tolerate,
        resize=resize,
        prepared=prepared,
        explain=explain,
    )
    url = store_url(store)
    check_store_exists(url)
    export_credentials(url)
    custom_code = None if code is None else CustomCode(str(custom_code_path(code)))
    cores = workers or available_cores()
    with (
        interrupts_noted(signal.SIGTERM),
        (reporter or Reporter()).stage("score") as stage,
        choices_named(url, model),
        contextlib.redirect_stdout(sys.stderr),  # what the function's own code prints
    ):
        outcome = run_job(
            job,
            ModelSource(url),
            workers=cores,
            progress=_progress(stage),
            replace=force,
            custom_code=custom_code,
        )
        if outcome.summary is None:
            raise ScoreError(f"{outcome.outputs.predictions} exists already: give another name, or --force")
        form = outcome.summary["input"].get("form")
        stage.summary = counted(outcome.summary["rows_out"], "row") + (f"; {form}" if form else "")
    return ScoreResult.of(outcome.summary)


def make_job(  # noqa: PLR0913 - as `score`
    source: str | Path,
    output: str | Path,
    *,
    model: str,
    input_format: str = "",
    output_format: str = "",
    passthrough: Sequence[str] | None = None,
    tolerate: float = DEFAULT_TOLERATED_BAD,
    resize: bool = False,
    prepared: bool = False,
    explain: int | None = None,
) -> Job:
    """Turn what a caller asks for into a job of the batch function; see `score`.

    Raises:
        UsageError: the arguments contradict each other.
    """
    target = to_url(str(output))
    try:
        return Job(
            to_url(str(source)),
            target,
            model=model,
            output_format=_output_format(target, output_format),
            input_format=input_format,
            passthrough=None if passthrough is None else tuple(passthrough),
            tolerated_bad=tolerate,
            resize=resize,
            prepared=prepared,
            explain=explain,
        )
    except JobError as error:
        raise UsageError(str(error)) from error


def _output_format(output: str, asked: str) -> str:
    """What the output's ending names, or what was asked for; JSON Lines below a prefix.

    Raises:
        UsageError: neither says it, or both do and differ.
    """
    named = next((each for each in OUTPUT_FORMATS if output.lower().endswith(f".{each}")), "")
    if not named and not asked and not output.endswith("/"):
        *most, last = (f".{each}" for each in OUTPUT_FORMATS)
        raise UsageError(
            f"{output} does not say in which format to write: give it the ending {', '.join(most)} or {last}, "
            "set --output-format, or give a folder, with / at its end"
        )
    if named and asked in OUTPUT_FORMATS and asked != named:
        raise UsageError(f"{output} ends with .{named}, and --output-format is {asked}: change one of them")
    return asked or named or "jsonl"


def _progress(stage: Stage) -> Callable[[int, int, int], None]:
    """What `run_job` tells the bytes done, all bytes and the rows; before it begins, and after each chunk.

    From then on Ctrl-C, and a service manager's stop, are taken between two chunks. Raised wherever the main thread
    happens to be, KeyboardInterrupt can leave a lock that it shares with the workers held for ever:
    `Condition.__enter__` returns with the lock taken, and no `with` block is there yet to release it.
    """
    started = time.monotonic()

    def progress(done: int, total: int, rows: int) -> None:
        hold("stopping as soon as this chunk is done; again to stop at once")
        rate = rows / max(time.monotonic() - started, 1e-9)
        stage.progress(min(done / total, 1.0) if total else 1.0, f"{rows:,} rows, {rate:,.0f}/s")

    return progress
