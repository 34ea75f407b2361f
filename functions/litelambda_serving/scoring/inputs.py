"""Which input a job means."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from litelambda_serving.objects import objects_for
from litelambda_serving.objects.base import ObjectInfo
from litelambda_serving.scoring.errors import InputNotFoundError, InputReplacedError, reading_input
from litelambda_serving.scoring.format_names import is_image

if TYPE_CHECKING:
    from collections.abc import Iterator

    from litelambda_serving.scoring.job import Job

__all__ = ["find_input", "list_images"]


@reading_input()
def find_input(job: Job) -> ObjectInfo:
    """The input, at the version that the job names.

    Raises:
        InputNotFoundError: there is none.
        InputReplacedError: it is another version.
    """
    objects = objects_for(job.input)
    if job.input.endswith("/"):
        return _find_prefix(job)
    info = objects.head(job.input, job.version_id)
    if info is None:
        raise InputNotFoundError(f"there is no {job.input}" + (f" of version {job.version}" if job.version else ""))
    if job.etag and info.tag != job.etag:
        raise InputReplacedError(f"{job.input} was replaced: its ETag is {info.tag}, asked for was {job.etag}")
    return info


def _find_prefix(job: Job) -> ObjectInfo:
    """All images of a prefix as one input, whose version is that of its list."""
    digest = hashlib.sha256()
    count = size = 0
    for found in list_images(job.input, job.start_after):
        if job.limit is not None and count >= job.limit:
            break
        digest.update(f"{found.url}\0{found.tag}\0".encode())
        count, size = count + 1, size + found.size
    if not count:
        raise InputNotFoundError(f"there are no images under {job.input}")
    return ObjectInfo(job.input, size, digest.hexdigest()[:32])


def list_images(prefix: str, start_after: str = "") -> Iterator[ObjectInfo]:
    """The images of a prefix in order: what a shard's plan counts is what its reader reads, empty ones too."""
    return (found for found in objects_for(prefix).list(prefix, start_after) if is_image(found.url))
