"""What an event asks for: S3's own notifications, EventBridge's form of them, and jobs spelled out.

{"Records": [{"eventSource": "aws:s3", …}]}               from S3, keys URL-encoded
{"detail-type": "Object Created", "detail": {…}}          from S3 through EventBridge, keys as they are
{"Type": "Notification", "Message": "…"}                  either of them through SNS
{"Event": "s3:TestEvent", …}                              from S3 when notifications are set up: nothing to do
{"input": "s3://…", …}                                    a job
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import orjson

from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litelambda_serving.scoring.settings import ScoringSettings

__all__ = ["job_of_fields", "jobs_of_event", "jobs_of_message"]

_ENDINGS_OF_OURS = (".errors.jsonl", ".summary.json", ".failure.json", ".checkpoint")
_DEFAULT_PREFIX = "predictions/"
_logger = logging.getLogger("score")  # the handler's


def jobs_of_message(body: str, settings: ScoringSettings, model: str) -> list[Job]:
    """The jobs of a queue's message.

    Raises:
        JobError: the message is not one of those above.
    """
    try:
        event = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise JobError(f"the message is not JSON: {error}") from error
    return jobs_of_event(event, settings, model)


def jobs_of_event(event: Any, settings: ScoringSettings, model: str) -> list[Job]:
    """The jobs of an event; none where there is nothing to do.

    Args:
        event: see the module.
        settings: where outputs go.
        model: the function's own model, for jobs that name none.

    Raises:
        JobError: the event is not one of those above.
    """
    if not isinstance(event, dict):
        raise JobError(f"expected an event, got {type(event).__name__}")
    if event.get("Event") == "s3:TestEvent":
        return _skipped("S3's test event", str(event.get("Bucket")))
    if event.get("Type") == "Notification" and isinstance(event.get("Message"), str):
        return jobs_of_message(event["Message"], settings, model)
    if "Records" in event:
        records = _of_type(event, "Records", list)
        return [job for record in records for job in _jobs_of_record(record, settings, model)]
    if event.get("source") == "aws.s3":
        return _jobs_of_detail(event, settings, model)
    if "input" in event:
        return [job_of_fields(event, settings, model)]
    fields = ", ".join(map(str, event))[:200]
    raise JobError(f"unknown event with the fields {fields}: expected a notification of S3, or a job with an input")


def job_of_fields(fields: Mapping[str, Any], settings: ScoringSettings, model: str) -> Job:
    """A job that is spelled out, the function's own settings where it says nothing.

    Raises:
        JobError: a field is missing, unknown or impossible, or names a place that jobs may not use.
    """
    defaults: dict[str, Any] = {
        "model": model,
        "output_format": settings.output_format,
        "tolerated_bad": settings.tolerated_bad,
    }
    if isinstance(fields.get("input"), str):
        defaults["output"] = _output_for(fields["input"], settings)
    unsaid = {name: value for name, value in defaults.items() if fields.get(name) is None}
    return _allowed(Job.from_dict({**fields, **unsaid}), settings)


def _jobs_of_record(record: Any, settings: ScoringSettings, model: str) -> list[Job]:
    source, name = _of_type(record, "eventSource"), _of_type(record, "eventName")
    if source != "aws:s3":
        raise JobError(f"a record of {source}: expected one of aws:s3")
    s3 = _of_type(record, "s3", dict)
    found = _of_type(s3, "object", dict)
    key = unquote_plus(_of_type(found, "key"))
    if not name.removeprefix("s3:").startswith("ObjectCreated:"):
        return _skipped(f"no object was created: {name}", key)
    bucket = _of_type(_of_type(s3, "bucket", dict), "name")
    return _jobs(bucket, key, _optional(found, "versionId"), _optional(found, "eTag"), (settings, model))


def _jobs_of_detail(event: Mapping[str, Any], settings: ScoringSettings, model: str) -> list[Job]:
    detail_type, detail = _of_type(event, "detail-type"), _of_type(event, "detail", dict)
    if detail_type != "Object Created":
        return _skipped(f"no object was created: {detail_type}", str(detail.get("object")))
    found = _of_type(detail, "object", dict)
    bucket = _of_type(_of_type(detail, "bucket", dict), "name")
    return _jobs(
        bucket, _of_type(found, "key"), _optional(found, "version-id"), _optional(found, "etag"), (settings, model)
    )


def _of_type(fields: Any, name: str, kind: type = str) -> Any:
    value = fields.get(name) if isinstance(fields, dict) else None
    if not isinstance(value, kind):
        raise JobError(
            f"field {name} of the event: expected {kind.__name__}, got {type(value).__name__}: "
            "expected a notification of S3"
        )
    return value


def _optional(fields: Mapping[str, Any], name: str) -> str:
    return "" if fields.get(name) is None else str(_of_type(fields, name))


def _jobs(bucket: str, key: str, version_id: str, etag: str, defaults: tuple[ScoringSettings, str]) -> list[Job]:
    settings, model = defaults
    url = f"s3://{bucket}/{key}"
    output = _output_for(url, settings)
    if key.endswith("/"):
        return _skipped("a folder has no rows", url)
    if url.startswith(output) or key.endswith(_ENDINGS_OF_OURS):
        return _skipped(f"it lies among the predictions, which are never scored: {output}", url)
    job = Job(
        url,
        output,
        version_id=version_id,
        etag=etag.strip('"'),
        model=model,
        output_format=settings.output_format,
        tolerated_bad=settings.tolerated_bad,
    )
    return [_allowed(job, settings)]


def _skipped(reason: str, what: str) -> list[Job]:
    """No job; an event is never dropped without a line."""
    _logger.info("an event asks for nothing", extra={"reason": reason, "input": what})
    return []


def _allowed(job: Job, settings: ScoringSettings) -> Job:
    settings.check_input(job.input)
    settings.check_output(job.output)
    return job


def _output_for(url: str, settings: ScoringSettings) -> str:
    if settings.output:
        return settings.output
    bucket = url.removeprefix("s3://").partition("/")[0]
    return f"s3://{bucket}/{_DEFAULT_PREFIX}"
