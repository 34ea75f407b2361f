"""One run spread over many invocations: planned as a list of jobs, and put together again.

    <output>/<run>/shards.json            the plan: a job for each shard, one item each of a Distributed Map
    <output>/<run>/part-00000.jsonl, …    what each shard writes, with its summary next to it
    <output>/<run>/summary.json           the whole run

The run's name tells input, version and model: whoever starts it again finds the shards that are done.
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson

from litelambda_serving.objects import objects_for
from litelambda_serving.objects.base import ObjectInfo
from litelambda_serving.scoring.errors import InputNotFoundError, JobError, reading_input
from litelambda_serving.scoring.format_names import input_format_of, is_image
from litelambda_serving.scoring.formats.npy_header import MAX_HEADER_BYTES, parse_header
from litelambda_serving.scoring.job import Job, Outputs, identity
from litelambda_serving.scoring.running.summary import utc_now
from litelambda_serving.scoring.running.tally import add_tallies

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from litelambda_serving.scoring.models import ModelSource

__all__ = ["DEFAULT_SHARD_BYTES", "merge", "plan"]

DEFAULT_SHARD_BYTES = 256 * 1024 * 1024
_IMAGES_PER_SHARD = 1000
_MAX_SHARDS = 80_000  # each leaves 3 bytes of the 256 KiB that a map's state may hand on
_READS = 16  # of shards' summaries at once


def plan(job: Job, models: ModelSource, shard_bytes: int = DEFAULT_SHARD_BYTES) -> dict[str, Any]:
    """Write the plan of a run.

    Args:
        job: its input may be one object, or a prefix of objects of any format; its output is a prefix.
        models: where its model comes from.
        shard_bytes: about how large a shard is.

    Returns:
        Where the plan is, as a Distributed Map reads it, and what `merge` needs.

    Raises:
        JobError: the output is not a prefix, or the shards are too many for one run.
        InputNotFoundError: there is nothing to score.
    """
    if not job.output.endswith("/"):
        raise JobError(f"output {job.output!r}: a run needs a prefix that ends with a slash")
    if shard_bytes < 1:
        raise JobError(f"shard_bytes {shard_bytes}: expected a positive number")
    pin = models.pin(job.model)
    with reading_input():
        found = list(_inputs(job))
    if not found:
        raise InputNotFoundError(f"there is nothing to score under {job.input}")
    digest = hashlib.sha256(f"{identity(job, pin.digest)}\0{shard_bytes}".encode())
    for info in found:
        digest.update(f"\0{info.url}\0{info.version}".encode())
    folder = f"{job.output}{digest.hexdigest()[:32]}/"
    base = replace(job, model=f"{pin.name}:{pin.version}", version_id="", etag="")
    shards = [
        replace(shard, output=f"{folder}part-{number:05d}.{job.output_format}", shard=number)
        for number, shard in enumerate(_shards(base, found, shard_bytes))
    ]
    if len(shards) > _MAX_SHARDS:
        raise JobError(
            f"{len(shards)} shards are more than the {_MAX_SHARDS} of one run: start a run for each folder of the input"
        )
    document = orjson.dumps([shard.to_dict() for shard in shards], option=orjson.OPT_INDENT_2)
    objects_for(folder).put(f"{folder}shards.json", document + b"\n")
    bucket, _, key = folder.removeprefix("s3://").partition("/")
    return {
        "run": folder,
        "bucket": bucket,
        "manifest": f"{key}shards.json",
        "num_shards": len(shards),
        "input": job.input,
        "model": pin.to_dict(),
    }


def _inputs(job: Job) -> Iterator[ObjectInfo]:
    objects = objects_for(job.input)
    if not job.input.endswith("/"):
        info = objects.head(job.input, job.version_id)
        if info is not None:
            yield info
        return
    for info in objects.list(job.input):
        name = job.input_format or input_format_of(info.url)
        if name == "images":
            is_row = is_image(info.url)  # as `list_images` has it; no output is an image
        else:
            is_row = bool(info.size and name) and not info.url.startswith(job.output)
        if is_row:
            yield info


def _shards(base: Job, found: Iterable[ObjectInfo], shard_bytes: int) -> Iterator[Job]:
    """Every input's shards; images, which are small, many to a shard."""
    images: list[ObjectInfo] = []
    after = ""
    for info in found:
        name = base.input_format or input_format_of(info.url)
        if name == "images" and base.input.endswith("/"):
            images.append(info)
            if len(images) == _IMAGES_PER_SHARD:
                yield replace(base, input_format="images", start_after=after, limit=len(images))
                after, images = images[-1].url, []
            continue
        whole = replace(base, input=info.url, input_format=name, version_id=info.version_id, etag=info.tag)
        spans = list(_spans(info, name, shard_bytes))
        if len(spans) < 2:
            yield whole
        else:
            yield from (replace(whole, span=span) for span in spans)
    if images:
        yield replace(base, input_format="images", start_after=after, limit=len(images))


def _spans(info: ObjectInfo, name: str, shard_bytes: int) -> Iterator[tuple[int, int]]:
    """The parts of an input that can be scored apart: bytes of text, rows of an array; none of anything else."""
    if info.url.lower().endswith(".gz") or info.size <= shard_bytes:
        return
    if name in ("jsonl", "csv"):
        step, stop = shard_bytes, info.size
    elif name == "npy":
        with reading_input():
            shape, dtype, _ = parse_header(objects_for(info.url).read(info, 0, min(MAX_HEADER_BYTES, info.size)))
        row_bytes = dtype.itemsize
        for size in shape[1:]:
            row_bytes *= size
        step, stop = max(shard_bytes // max(row_bytes, 1), 1), shape[0]
    else:
        return
    for start in range(0, stop, step):
        yield start, min(start + step, stop)


def merge(planned: dict[str, Any]) -> dict[str, Any]:
    """Put the shards' summaries together, and write the run's.

    Args:
        planned: what `plan` returned.

    Returns:
        The run summary: sums over the shards that are done, and which are not, with the reason where there is one.
    """
    folder = planned["run"]
    objects = objects_for(folder)
    document = objects.get(f"{folder}shards.json")
    if document is None:
        raise InputNotFoundError(f"there is no plan at {folder}shards.json")
    shards = [Job.from_dict(fields) for fields in orjson.loads(document[0])]
    total: dict[str, Any] = {"rows_in": 0, "rows_out": 0, "rows_bad": 0, "worker_seconds": 0.0, "cost_usd": 0.0}
    parts, failed = [], []
    tally: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(_READS, thread_name_prefix="merge") as executor:
        for shard, part in executor.map(partial(_read_part, digest=planned["model"]["digest"]), shards):
            if "error" in part:
                failed.append({"shard": shard.shard, "input": shard.input, **part})
                continue
            total = {name: round(value + (part[name] or 0), 9) for name, value in total.items()}
            add_tallies(tally, part["predictions"])
            done = {"shard": shard.shard, "url": shard.output, "rows_out": part["rows_out"]}
            parts.append({**done, "span": list(shard.span)} if shard.span else done)
    run = {
        "format_version": 1,
        "input": {"url": planned["input"]},
        "output": {"url": folder, "num_shards": len(shards)},
        "errors": None if not total["rows_bad"] else f"{folder}part-*.errors.jsonl",
        "model": planned["model"],
        **total,
        "finished": utc_now(),
        "predictions": tally,
        "failed": failed,
        "parts": parts,
    }
    objects.put(f"{folder}summary.json", orjson.dumps(run, option=orjson.OPT_INDENT_2) + b"\n")
    # What a state machine hands on is limited to 256 KiB: what grows with shards and classes stays in the object.
    del run["predictions"]
    return {**run, "parts": len(parts), "failed": len(failed), "summary": f"{folder}summary.json"}


def _read_part(shard: Job, digest: str) -> tuple[Job, dict[str, Any]]:
    """A shard's summary, or `error` and `message` where it is not done."""
    outputs = Outputs(shard, digest)
    objects = objects_for(shard.output)
    # The summary is written before the predictions: only both together mean that the shard is done.
    summary = objects.get(outputs.summary) if objects.head(outputs.predictions) else None
    if summary is not None:
        fields: dict[str, Any] = orjson.loads(summary[0])
        return shard, fields
    report = objects.get(outputs.failure)
    if report is None:
        return shard, {"error": "unfinished", "message": "no output and no report: see the function's log"}
    fields = orjson.loads(report[0])
    return shard, {"error": fields["error"], "message": fields["message"]}
