"""The batch handler, `score.handler`: files in, predictions next to them, each exactly once.

    from a queue        S3's notifications, their EventBridge form, jobs: partial batch responses
    directly            the same events, a job, one item of a Distributed Map
    "action": "plan"    cuts a run into shards for a Distributed Map
    "action": "merge"   puts the shards of a run together

An input that cannot be scored is reported next to its output and acknowledged. Everything else is raised and tried
again; what keeps failing ends in the dead-letter queue.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import boto3
import orjson
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit
from aws_lambda_powertools.utilities.batch import BatchProcessor, EventType, process_partial_response

from litelambda_serving.custom_code import CustomCode
from litelambda_serving.scoring.errors import InputError, JobError
from litelambda_serving.scoring.events import job_of_fields, jobs_of_event, jobs_of_message
from litelambda_serving.scoring.models import ModelSource
from litelambda_serving.scoring.running.engine import Outcome, run_job
from litelambda_serving.scoring.running.shards import DEFAULT_SHARD_BYTES, merge, plan
from litelambda_serving.scoring.running.summary import report_failure
from litelambda_serving.scoring.settings import ScoringSettings
from litelambda_serving.settings import Settings

if TYPE_CHECKING:
    from aws_lambda_powertools.utilities.batch.types import PartialItemFailureResponse
    from aws_lambda_powertools.utilities.data_classes.sqs_event import SQSRecord

    from litelambda_serving.scoring.job import Job

_ALIAS_MAX_AGE_S = 30.0
_LEAST_SHARE = 0.25  # of the function's time: with less left, a file is handed back instead of begun

_settings = Settings.from_environment(os.environ)
_scoring = ScoringSettings(os.environ)
_own_model = ""
if _settings.model_name:
    _separator = ":" if _settings.model_version.isdecimal() else "@"
    _own_model = f"{_settings.model_name}{_separator}{_settings.model_version}"
_custom_code = CustomCode(_settings.custom_code) if _settings.custom_code else None
_models = ModelSource(_settings.model_store, _ALIAS_MAX_AGE_S, {_own_model: _settings.manifest_sha256}, audited=True)
_logger = Logger(service="score", level=_settings.log_level)
_metrics = Metrics(namespace=_settings.metrics_namespace or "litelambda", service="score")
_metrics.set_default_dimensions(FunctionName=os.environ.get("AWS_LAMBDA_FUNCTION_NAME", "local"))  # stages do not mix
_processor = BatchProcessor(event_type=EventType.SQS, raise_on_entire_batch_failure=False)
_queue: Any = None


class Invocation:
    """How long this invocation lasts."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self._whole = self.time_left()

    def time_left(self) -> float:
        """Seconds until Lambda stops it."""
        return float(self._context.get_remaining_time_in_millis()) / 1000

    def has_time(self) -> bool:
        """Whether enough is left to begin another file."""
        return self.time_left() >= _LEAST_SHARE * self._whole


def handler(event: Any, context: Any) -> Any:
    """Handle one invocation; see the module for the events.

    Raises:
        InputError: a job that was invoked directly cannot be done; its report is written.
        ServingError: anything else, which another try may not meet.
    """
    invocation = Invocation(context)
    try:
        if _is_from_queue(event):
            return _handle_messages(event, context, invocation)
        action = event.get("action") if isinstance(event, dict) else None
        if action == "plan":
            return _plan(event.get("request"), int(event.get("shard_bytes") or DEFAULT_SHARD_BYTES))
        if action == "merge":
            _scoring.check_output(event["plan"]["run"])
            return merge(event["plan"])
        if isinstance(event, dict) and "input" in event:
            return _score(job_of_fields(event, _scoring, _own_model), invocation)
        return {"results": [_acknowledged(job, invocation) for job in _jobs(event)]}
    finally:
        if _settings.metrics_namespace and _metrics.metric_set:
            _metrics.flush_metrics()
        _metrics.clear_metrics()


def _is_from_queue(event: Any) -> bool:
    records = event.get("Records") if isinstance(event, dict) else None
    first = records[0] if isinstance(records, list) and records else None
    return isinstance(first, dict) and first.get("eventSource") == "aws:sqs"


def _jobs(event: Any) -> list[Job]:
    return jobs_of_event(event, _scoring, _own_model)


def _plan(request: Any, shard_bytes: int) -> dict[str, Any]:
    """A run asked for by an API call (a job), or by an upload (EventBridge's event)."""
    jobs = _jobs(request)
    if len(jobs) != 1:
        raise JobError("expected a job, or the event of one new object")
    return plan(jobs[0], _models, shard_bytes)


def _handle_messages(event: dict[str, Any], context: Any, invocation: Invocation) -> PartialItemFailureResponse:
    def handle(record: SQSRecord) -> None:
        for job in jobs_of_message(record.body, _scoring, _own_model):
            if not invocation.has_time():
                _hand_back(job.to_dict())
            else:
                _acknowledged(job, invocation)

    def logged(record: SQSRecord) -> None:
        try:
            handle(record)
        except Exception:
            _logger.exception("a message will be tried again", extra={"message_id": record.message_id})
            raise

    return process_partial_response(event=event, record_handler=logged, processor=_processor, context=context)


def _acknowledged(job: Job, invocation: Invocation) -> dict[str, Any]:
    """Do a job that came as an event: its failure is reported, not raised."""
    try:
        result = _score(job, invocation)
    except InputError as error:
        return {"status": "failed", "input": job.input, "error": type(error).__name__, "message": str(error)}
    if result["status"] == "continues":
        _hand_back(result["job"])
    return result


def _score(job: Job, invocation: Invocation) -> dict[str, Any]:
    try:
        outcome = run_job(
            job, _models, workers=_settings.num_threads, time_left=invocation.time_left, custom_code=_custom_code
        )
    except InputError as error:
        report = report_failure(job, _models, error)
        _metrics.add_metric("FilesFailed", MetricUnit.Count, 1)
        _logger.warning("an input cannot be scored", extra={"input": job.input, "error": str(error), "report": report})
        raise
    return _reported(job, outcome)


def _reported(job: Job, outcome: Outcome) -> dict[str, Any]:
    """Log and count how a job ended, and say it in JSON."""
    result: dict[str, Any] = {"status": outcome.status, "input": job.input, "output": outcome.outputs.predictions}
    if outcome.summary is not None:
        result["summary"] = {
            key: outcome.summary[key]
            for key in ("rows_in", "rows_out", "rows_bad", "seconds", "invocations", "batch_size", "model")
        }
        if outcome.summary["rows_bad"]:  # an hour without a value costs nothing
            _metrics.add_metric("RowsBad", MetricUnit.Count, outcome.summary["rows_bad"])
    if outcome.status == "continues":
        result["job"] = outcome.job.to_dict()
    _logger.info("job", extra=result)
    return result


def _hand_back(fields: dict[str, Any]) -> None:
    """Queue a job's rest as a message of its own: a retry of the first would count towards the dead-letter queue."""
    global _queue  # noqa: PLW0603 - made once, on first use
    if not _scoring.queue_url:
        raise JobError("the file takes longer than one invocation: set SCORE_QUEUE_URL, so that the rest can be queued")
    if _queue is None:
        _queue = boto3.session.Session().client("sqs")
    _queue.send_message(QueueUrl=_scoring.queue_url, MessageBody=orjson.dumps(fields).decode())
