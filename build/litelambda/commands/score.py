"""`litelambda score`: the batch function's own code, on this machine or submitted to AWS.

litelambda score rows.jsonl predictions.jsonl --model mnist_mlp
litelambda score s3://bucket/rows/ s3://bucket/predictions/ --model mnist_mlp@stable --on aws --state-machine ARN
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from litelambda.common.errors import LitelambdaError, UsageError
from litelambda.common.paths import DEFAULT_STORE, store_url
from litelambda.common.wording import counted
from litelambda.store.artifact_store import check_store_exists
from litelambda_serving.objects import to_url
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.formats import OUTPUT_FORMATS
from litelambda_serving.scoring.job import Job
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import run_job
from litelambda_serving.scoring.running.workers import available_cores

if TYPE_CHECKING:
    from types import FrameType

__all__ = ["ScoreError", "describe", "score"]

_POLL_SECONDS = 2.0
_BAR_WIDTH = 30
_UPDATE_SECONDS = 0.1
_STDERR = 2
_CLEAR_LINE = "\r\x1b[2K"


class ScoreError(LitelambdaError):
    """A job could not be done."""


def score(arguments: argparse.Namespace) -> dict[str, Any]:
    """Do what the command line says; return the run summary.

    Raises:
        UsageError: the arguments make no sense.
        ScoreError: the output exists already, or the job failed on AWS.
        ServingError: the input or the model cannot be used.
    """
    try:
        job = _job(arguments)
    except JobError as error:
        raise UsageError(str(error)) from error
    _check_options(arguments)
    if arguments.on == "aws":
        return _on_aws(job, arguments)
    return _on_local(job, arguments)


def _check_options(arguments: argparse.Namespace) -> None:
    """Refuse options that would be ignored where the job runs."""
    if arguments.on == "aws":
        given = {"--force": arguments.force, "--workers": arguments.workers, "--store": arguments.store}
        why = "the deployed function has a store and cores of its own, and writes over no output"
    else:
        given = {"--state-machine": arguments.state_machine}
        why = "nothing is submitted"
    ignored = ", ".join(option for option, value in given.items() if value)
    if ignored:
        raise UsageError(f"--on {arguments.on} does not take {ignored}: {why}")


def _job(arguments: argparse.Namespace) -> Job:
    output = to_url(arguments.output)
    passthrough = arguments.passthrough
    return Job(
        to_url(arguments.input),
        output,
        model=arguments.model,
        output_format=_output_format(output, arguments.output_format),
        input_format=arguments.input_format or "",
        passthrough=None if passthrough is None else tuple(filter(None, passthrough.split(","))),
        tolerated_bad=arguments.tolerate,
        resize=arguments.resize,
    )


def _output_format(output: str, asked: str | None) -> str:
    """What the output's ending names, or what was asked for; JSON Lines below a prefix.

    Raises:
        UsageError: neither says it, or both do and differ.
    """
    named = next((each for each in OUTPUT_FORMATS if output.lower().endswith(f".{each}")), None)
    if named is None and asked is None and not output.endswith("/"):
        *most, last = (f".{each}" for each in OUTPUT_FORMATS)
        raise UsageError(
            f"{output} does not say in which format to write: give it the ending {', '.join(most)} or {last}, "
            "set --output-format, or give a folder, with / at its end"
        )
    if named is not None and asked in OUTPUT_FORMATS and asked != named:
        raise UsageError(f"{output} ends with .{named}, and --output-format is {asked}: change one of them")
    return asked or named or "jsonl"


def _on_local(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    store = arguments.store or store_url(DEFAULT_STORE)
    check_store_exists(store)
    with _Bar(job.input) as bar, _Interrupts() as interrupts:

        def progress(done: int, total: int, rows: int) -> None:
            interrupts.raise_if_any()
            bar.show(done, total, rows)

        outcome = run_job(
            job,
            ModelSource(store),
            workers=arguments.workers or available_cores(),
            progress=progress,
            replace=arguments.force,
        )
    if outcome.summary is None:
        raise ScoreError(f"{outcome.outputs.predictions} exists already: give another name, or --force")
    return outcome.summary


class _Interrupts:
    """Ctrl-C, and a service manager's stop, taken between two chunks of a job.

    Raised wherever the main thread happens to be, KeyboardInterrupt can leave a lock that it shares with the workers
    held for ever: `Condition.__enter__` returns with the lock taken, and no `with` block is there yet to release it.
    Before the first chunk there are no workers, and it is raised at once; so it is at the second Ctrl-C, for whoever
    will not wait.
    """

    def __init__(self) -> None:
        self._waits = False
        self._asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Interrupts:
        for number in (signal.SIGINT, signal.SIGTERM):
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's, or a shell's for what runs behind it
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def raise_if_any(self) -> None:
        """Where an interrupt does no harm; from the first call on, the first one waits for the next.

        Raises:
            KeyboardInterrupt: there was one.
        """
        self._waits = True
        if self._asked:
            raise KeyboardInterrupt

    def _note(self, _signal: int, _frame: FrameType | None) -> None:
        if self._asked or not self._waits:
            raise KeyboardInterrupt
        self._asked = True
        message = "litelambda: stopping as soon as this chunk is done; again to stop at once\n"
        if sys.stderr.isatty():
            message = _CLEAR_LINE + message  # the bar's
        with suppress(OSError):  # past sys.stderr, which may be in the middle of a write
            os.write(_STDERR, message.encode())


def _on_aws(job: Job, arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the state machine, and wait for its end."""
    machine = arguments.state_machine or os.environ.get("LITELAMBDA_STATE_MACHINE", "")
    if not machine:
        raise UsageError("--on aws needs --state-machine ARN (an output of the stack), or LITELAMBDA_STATE_MACHINE")
    for url in (job.input, job.output):
        if not url.startswith("s3://"):
            raise UsageError(f"--on aws takes s3:// URLs, not {url}")
    if not job.output.endswith("/"):
        raise UsageError(f"--on aws writes a part for each shard: give a prefix that ends with /, not {job.output}")
    match machine.split(":"):
        case ["arn", _, "states", region, _, "stateMachine", *_]:
            pass
        case _:
            raise UsageError(
                f"{machine!r} is not arn:aws:states:REGION:ACCOUNT:stateMachine:NAME: see the stack's outputs"
            )
    import boto3
    import orjson
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = boto3.client("stepfunctions", region_name=region)
        name = f"litelambda-{uuid.uuid4().hex}"
        request = orjson.dumps(job.to_dict()).decode()
        started = client.start_execution(stateMachineArn=machine, name=name, input=request)
        arn = started["executionArn"]
        print(f"litelambda: started {arn}", file=sys.stderr)
        while (state := client.describe_execution(executionArn=arn))["status"] == "RUNNING":
            time.sleep(_POLL_SECONDS)
    except (BotoCoreError, ClientError) as error:
        raise ScoreError(f"Step Functions: {error}") from error
    if state["status"] != "SUCCEEDED":
        raise ScoreError(f"{arn} ended {state['status']}: {state.get('error', '')} {state.get('cause', '')}".strip())
    result: dict[str, Any] = orjson.loads(state["output"])
    return result


class _Bar:
    """A progress bar on stderr, if that is a terminal."""

    def __init__(self, title: str) -> None:
        self._title = title.rstrip("/").rpartition("/")[2]
        self._shown = sys.stderr.isatty()
        self._started = time.monotonic()
        self._last = 0.0

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shown:
            print(_CLEAR_LINE, end="", file=sys.stderr, flush=True)

    def show(self, done: int, total: int, rows: int) -> None:
        """Redraw, now and then."""
        now = time.monotonic()
        if not self._shown or now - self._last < _UPDATE_SECONDS:
            return
        self._last = now if done else 0.0  # an empty bar is shown until the first chunk is done
        share = min(done / total, 1.0) if total else 1.0
        bar = "█" * round(share * _BAR_WIDTH)
        rate = rows / max(now - self._started, 1e-9)
        text = f"{self._title} {bar:·<{_BAR_WIDTH}} {share:4.0%}  {rows:,} rows, {rate:,.0f}/s"
        print(f"{_CLEAR_LINE}{text}", end="", file=sys.stderr, flush=True)


def describe(summary: dict[str, Any]) -> str:
    """The summary of a job, or of a run of many shards, in a few lines for a person."""
    model, output = summary["model"], summary["output"]
    scored = f"{summary['rows_out']:,} of {counted(summary['rows_in'], 'row')} scored"
    rows = f"{scored} by {model['name']} version {model['version']}"
    num_shards = output.get("num_shards")
    took = f"{summary['seconds']:.1f} s" if num_shards is None else counted(num_shards, "shard")
    lines = [f"{rows} in {took}", f"predictions: {output['url']}"]
    if summary["rows_bad"]:
        lines.append(f"bad rows: {summary['rows_bad']:,}, see {summary['errors']}")
    if summary.get("failed"):
        lines.append(f"failed shards: {summary['failed']:,}, see {summary['summary']}")
    return "\n".join(lines)
