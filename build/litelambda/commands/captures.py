"""Reading captures: the records of a function, or of SageMaker's data capture, one after the other."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.common.errors import DataError
from litelambda_serving.objects import objects_for, to_url

__all__ = ["CapturedRequest", "read_capture", "read_lines"]

_CHUNK_BYTES = 1 << 20
_LENGTH_HEADER = "inference-header-content-length"


@dataclass(frozen=True)
class CapturedRequest:
    """A request that was captured, with its answer.

    Attributes:
        event_id: the request's.
        path: that it was sent to; "" in a capture of SageMaker's.
        content_type: of its body.
        length: of the JSON before V2's binary tensors; "" where all of the body is one thing.
        body: as it was sent.
        answer: the body of the answer.
        answer_length: as `length`.
    """

    event_id: str
    path: str
    content_type: str
    length: str
    body: bytes
    answer: bytes
    answer_length: str


def read_capture(source: str | Path) -> Iterator[CapturedRequest]:
    """The records of a capture, a chunk in memory at a time.

    Args:
        source: a file, a folder, or an `s3://` URL of an object or of a prefix, which ends with "/".

    Raises:
        DataError: there is nothing, or a line is not a record; the message says which.
        StoreError: it cannot be read.
    """
    for place, line in read_lines(source):
        try:
            yield _request(json.loads(line))
        except (ValueError, LookupError, TypeError, AttributeError, binascii.Error) as error:
            raise DataError(
                f"{place}: not a record of a capture, expected captureData with endpointInput and endpointOutput: "
                f"{type(error).__name__}: {error}"
            ) from error


def read_lines(source: str | Path) -> Iterator[tuple[str, str]]:
    """The lines of a file, or of all files below a folder or prefix, each with its place for messages.

    Raises:
        DataError: the file does not exist, or the folder is empty.
    """
    url = to_url(str(source))
    objects = objects_for(url)
    found = list(objects.list(url)) if url.endswith("/") else [info for info in [objects.head(url)] if info]
    if not found:
        raise DataError(f"{source}: there is nothing to read")
    for info in found:
        rest, number = b"", 0
        for start in range(0, info.size, _CHUNK_BYTES):
            *lines, rest = (rest + objects.read(info, start, min(start + _CHUNK_BYTES, info.size))).split(b"\n")
            for line in lines:
                number += 1
                if line.strip():
                    yield f"{info.url}, line {number}", line.decode("utf-8", "replace")
        if rest.strip():
            yield f"{info.url}, line {number + 1}", rest.decode("utf-8", "replace")


def _request(record: dict[str, Any]) -> CapturedRequest:
    asked, answered = (record["captureData"][side] for side in ("endpointInput", "endpointOutput"))
    metadata = record["eventMetadata"]
    attributes = dict(each.split("=", 1) for each in metadata.get("customAttributes", ()) if "=" in each)
    body, content_type = _data(asked), str(asked["observedContentType"])
    if asked["encoding"] == "CSV":
        rows = [[float(value) for value in row.split(",")] for row in body.decode().splitlines() if row.strip()]
        body, content_type = json.dumps({"instances": rows}).encode(), "application/json"
    return CapturedRequest(
        event_id=str(metadata["eventId"]),
        path=attributes.get("path", ""),
        content_type=content_type,
        length=attributes.get(_LENGTH_HEADER, ""),
        body=body,
        answer=_data(answered),
        answer_length=attributes.get(f"response-{_LENGTH_HEADER}", ""),
    )


def _data(side: dict[str, Any]) -> bytes:
    if side["encoding"] == "BASE64":
        return base64.b64decode(side["data"], validate=True)
    return str(side["data"]).encode()
