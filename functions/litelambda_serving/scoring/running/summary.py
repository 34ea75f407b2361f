"""The run summary: what came in, what went out, by which model, how long it took and roughly what it cost.

A job that cannot be done has a report instead.
"""

from __future__ import annotations

import os
import platform
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from litelambda_serving.objects import objects_for
from litelambda_serving.scoring.job import Outputs
from litelambda_serving.scoring.running.tally import add_tallies

if TYPE_CHECKING:
    from litelambda_serving.objects.base import ObjectInfo
    from litelambda_serving.scoring.errors import InputError
    from litelambda_serving.scoring.job import Job
    from litelambda_serving.scoring.models import LoadedModel, ModelSource
    from litelambda_serving.scoring.running.processor import Scored

__all__ = ["Counts", "cost_usd", "make_summary", "report_failure"]

# us-east-1, public list prices per GB-second and per request; an estimate, without storage and transfer.
_USD_PER_GB_SECOND = {"x86_64": 0.0000166667, "aarch64": 0.0000133334}
_USD_PER_REQUEST = 0.0000002


@dataclass
class Counts:
    """What is counted along the way, over all invocations of a job.

    Attributes:
        rows_out: rows with a prediction.
        rows_bad: rows without.
        seconds: time of the invocations together.
        worker_seconds: time that workers were busy.
        batch_size: the one in use last.
        invocations: how many there were.
        started: when the first began, UTC.
        tally: distribution of the predictions.
    """

    rows_out: int = 0
    rows_bad: int = 0
    seconds: float = 0.0
    worker_seconds: float = 0.0
    batch_size: int = 0
    invocations: int = 0
    started: str = ""
    tally: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def rows_in(self) -> int:
        """All rows."""
        return self.rows_out + self.rows_bad

    def add(self, scored: Scored) -> None:
        """Count one chunk."""
        self.rows_out += scored.rows_out
        self.rows_bad += scored.rows_bad
        self.worker_seconds += scored.seconds
        self.batch_size = max(self.batch_size, scored.batch_size)
        add_tallies(self.tally, scored.tally)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return asdict(self)


def utc_now() -> str:
    """The time, as ISO 8601 in UTC."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def cost_usd(seconds: float, invocations: int) -> float | None:
    """What this function's time costs, by its memory and the list price; None outside Lambda."""
    memory_mb = os.environ.get("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "")
    if not memory_mb.isdecimal():
        return None
    price = _USD_PER_GB_SECOND.get(platform.machine(), _USD_PER_GB_SECOND["x86_64"])
    return round(seconds * int(memory_mb) / 1024 * price + invocations * _USD_PER_REQUEST, 9)


def make_summary(
    job: Job, info: ObjectInfo, model: LoadedModel, outputs: Outputs, counts: Counts, position: dict[str, Any] | None
) -> dict[str, Any]:
    """The summary of a job that is about to be committed."""
    seconds = max(counts.seconds, 1e-9)
    summary: dict[str, Any] = {
        "format_version": 1,
        "input": {"url": job.input, "size_bytes": info.size, "etag": info.tag, "version_id": info.version_id or None},
        "output": {"url": outputs.predictions, "format": job.output_format},
        "errors": outputs.errors if counts.rows_bad else None,
        "model": model.pin.to_dict(),
        "rows_in": counts.rows_in,
        "rows_out": counts.rows_out,
        "rows_bad": counts.rows_bad,
        "started": counts.started,
        "finished": utc_now(),
        "seconds": round(counts.seconds, 3),
        "worker_seconds": round(counts.worker_seconds, 3),
        "rows_per_second": round(counts.rows_in / seconds, 1),
        "batch_size": counts.batch_size,
        "invocations": counts.invocations,
        "cost_usd": cost_usd(counts.seconds, counts.invocations),
        "predictions": counts.tally,
    }
    if job.shard is not None:
        summary["shard"] = job.shard
        summary["span"] = list(job.span) if job.span else None
        summary["end"] = position
    return summary


def report_failure(job: Job, models: ModelSource, error: InputError) -> str:
    """Write why a job cannot be done next to where its output would be; return the report's URL."""
    pin = models.pin(job.model)
    outputs = Outputs(job, pin.digest)
    report = {
        "format_version": 1,
        "job": job.to_dict(),
        "model": pin.to_dict(),
        "error": type(error).__name__,
        "message": str(error),
        "time": utc_now(),
    }
    objects_for(outputs.failure).put(outputs.failure, orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    return outputs.failure
