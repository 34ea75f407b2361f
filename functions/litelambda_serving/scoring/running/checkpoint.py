"""Where a job stopped before its deadline, so that another invocation resumes without losing or repeating a row.

One object: a line of JSON, and then the bytes of the outputs that did not fill a part yet. It is replaced by
compare and swap, so that of two invocations that resume from the same place only one sets the next.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from litelambda_serving.errors import StoreError
from litelambda_serving.objects import objects_for
from litelambda_serving.objects.base import UploadState
from litelambda_serving.scoring.job import Job, identity

if TYPE_CHECKING:
    from litelambda_serving.objects.base import ObjectInfo, Objects
    from litelambda_serving.scoring.job import Outputs

__all__ = ["Checkpoint", "checkpoint_of", "read_checkpoint", "write_checkpoint"]

FORMAT_VERSION = 1


@dataclass
class Checkpoint:
    """The state of a job between two invocations.

    Attributes:
        sequence: how many invocations worked on it.
        job: the job, its input's version filled in.
        model: name, version and digest that it began with, whatever the alias means now.
        input_tag: the input's ETag; reading resumes only while it is the same.
        position: where in the input.
        counts: the summary's counters so far.
        predictions: the upload of the predictions.
        errors: the upload of the bad rows, None while there are none.
        tag: of the object itself.
    """

    sequence: int
    job: dict[str, Any]
    model: dict[str, Any]
    input_tag: str
    position: dict[str, Any]
    counts: dict[str, Any]
    predictions: UploadState
    errors: UploadState | None
    tag: str = field(default="")


def write_checkpoint(objects: Objects, url: str, checkpoint: Checkpoint) -> bool:
    """Write a checkpoint over its predecessor; return whether it is this one that counts."""
    uploads = [checkpoint.predictions, checkpoint.errors or UploadState({})]
    header = {
        "format_version": FORMAT_VERSION,
        "sequence": checkpoint.sequence,
        "job": checkpoint.job,
        "model": checkpoint.model,
        "input_tag": checkpoint.input_tag,
        "position": checkpoint.position,
        "counts": checkpoint.counts,
        "uploads": [upload.upload for upload in uploads],
        "has_errors": checkpoint.errors is not None,
        "sizes": [len(blob) for upload in uploads for blob in (upload.head, upload.tail)],
    }
    blobs = [blob for upload in uploads for blob in (upload.head, upload.tail)]
    data = orjson.dumps(header) + b"\n" + b"".join(blobs)
    return objects.put(url, data, tag=checkpoint.tag)


def checkpoint_of(job: Job, info: ObjectInfo, model_digest: str, outputs: Outputs) -> Checkpoint | None:
    """Where this job stopped. What another input, model or job left at the same output is deleted.

    It would keep this job from ever setting its own; its upload is left to the bucket's lifecycle rule.
    """
    objects = objects_for(outputs.checkpoint)
    found = read_checkpoint(objects, outputs.checkpoint)
    if found is None:
        return None
    left_by = identity(Job.from_dict(found.job), str(found.model["digest"]))
    if found.input_tag == info.tag and left_by == identity(job, model_digest):
        return found
    objects.delete(outputs.checkpoint)
    return None


def read_checkpoint(objects: Objects, url: str) -> Checkpoint | None:
    """The checkpoint at a URL; None when there is none.

    Raises:
        StoreError: what is there is not a checkpoint of this version.
    """
    found = objects.get(url)
    if found is None:
        return None
    data, tag = found
    line, _, rest = data.partition(b"\n")
    try:
        header = orjson.loads(line)
        if header["format_version"] != FORMAT_VERSION:
            raise StoreError(f"{url} is a checkpoint of format version {header['format_version']}")
        blobs = []
        for size in header["sizes"]:
            blobs.append(rest[:size])
            rest = rest[size:]
        uploads = [
            UploadState(upload, blobs[2 * index], blobs[2 * index + 1])
            for index, upload in enumerate(header["uploads"])
        ]
        return Checkpoint(
            header["sequence"], header["job"], header["model"], header["input_tag"], header["position"],
            header["counts"], uploads[0], uploads[1] if header["has_errors"] else None, tag,
        )  # fmt: skip
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError) as error:
        raise StoreError(f"{url} is not a checkpoint: {error}") from error
