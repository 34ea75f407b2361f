"""What an event asks for: S3's own notifications, EventBridge's form of them, and jobs spelt out.

{"Records": [{"eventSource": "aws:s3", …}]}               from S3, keys URL-encoded
{"detail-type": "Object Created", "detail": {…}}          from S3 through EventBridge, keys as they are
{"Type": "Notification", "Message": "…"}                  either of them through SNS
{"Event": "s3:TestEvent", …}                              from S3 when notifications are set up: nothing to do
{"input": "s3://…", …}                                    a job
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_plus

import orjson

from serving.scoring.errors import JobError
from serving.scoring.job import Job

if TYPE_CHECKING:
    from collections.abc import Mapping

    from serving.scoring.settings import ScoringSettings

__all__ = ["job_of_fields", "jobs_of_event", "jobs_of_message"]

_ENDINGS_OF_OURS = (".errors.jsonl", ".summary.json", ".failure.json", ".checkpoint")
_DEFAULT_PREFIX = "predictions/"


def jobs_of_message(body: str, settings: ScoringSettings, model: str) -> list[Job]:
    """The jobs of a queue's message.

    Raises:
        JobError: the message is none of those that are known.
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
        JobError: the event is none of those that are known.
    """
    if not isinstance(event, dict):
        raise JobError(f"expected an event, got {type(event).__name__}")
    if event.get("Event") == "s3:TestEvent":
        return []
    if event.get("Type") == "Notification" and isinstance(event.get("Message"), str):
        return jobs_of_message(event["Message"], settings, model)
    try:
        if "Records" in event:
            jobs = [_job_of_record(record, settings, model) for record in event["Records"]]
            return [job for job in jobs if job is not None]
        if event.get("source") == "aws.s3":
            job = _job_of_detail(event, settings, model)
            return [] if job is None else [job]
    except (KeyError, TypeError) as error:
        raise JobError(f"the event lacks {error}: expected a notification of S3") from error
    if "input" in event:
        return [job_of_fields(event, settings, model)]
    raise JobError(f"an event with the fields {', '.join(map(str, event))[:200]} is none that this function knows")


def job_of_fields(fields: Mapping[str, Any], settings: ScoringSettings, model: str) -> Job:
    """A job that is spelt out, the function's own settings where it says nothing."""
    defaults: dict[str, Any] = {
        "model": model,
        "output_format": settings.output_format,
        "tolerated_bad": settings.tolerated_bad,
    }
    if isinstance(fields.get("input"), str):
        defaults["output"] = _output_for(fields["input"], settings)
    return Job.from_dict({**defaults, **fields})


def _job_of_record(record: Mapping[str, Any], settings: ScoringSettings, model: str) -> Job | None:
    if record["eventSource"] != "aws:s3":
        raise JobError(f"a record of {record['eventSource']}: expected one of aws:s3")
    if not record["eventName"].removeprefix("s3:").startswith("ObjectCreated:"):
        return None
    found = record["s3"]["object"]
    key = unquote_plus(found["key"])
    return _job(record["s3"]["bucket"]["name"], key, found.get("versionId"), found.get("eTag"), (settings, model))


def _job_of_detail(event: Mapping[str, Any], settings: ScoringSettings, model: str) -> Job | None:
    if event["detail-type"] != "Object Created":
        return None
    found = event["detail"]["object"]
    bucket = event["detail"]["bucket"]["name"]
    return _job(bucket, found["key"], found.get("version-id"), found.get("etag"), (settings, model))


def _job(
    bucket: str, key: str, version_id: str | None, etag: str | None, defaults: tuple[ScoringSettings, str]
) -> Job | None:
    settings, model = defaults
    url = f"s3://{bucket}/{key}"
    output = _output_for(url, settings)
    # Folders have no rows, and what this function writes must never start it again.
    if key.endswith("/") or url.startswith(output) or key.endswith(_ENDINGS_OF_OURS):
        return None
    return Job(
        url,
        output,
        version_id=version_id or "",
        etag=(etag or "").strip('"'),
        model=model,
        output_format=settings.output_format,
        tolerated_bad=settings.tolerated_bad,
    )


def _output_for(url: str, settings: ScoringSettings) -> str:
    if settings.output:
        return settings.output
    bucket = url.removeprefix("s3://").partition("/")[0]
    return f"s3://{bucket}/{_DEFAULT_PREFIX}"
