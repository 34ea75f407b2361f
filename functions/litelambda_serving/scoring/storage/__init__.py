"""Inputs and outputs wherever they lie: local files and S3 behind one interface.

URLs are whole (`s3://bucket/key`, `file:///path`), since a job may read here and write there.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import quote

from litelambda_serving.scoring.errors import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ObjectInfo", "Objects", "Upload", "UploadState", "objects_for", "part_bytes_for", "split_url", "to_url"]

MIN_PART_BYTES = 8 * 1024 * 1024
_MAX_PARTS = 9000  # S3 takes 10,000


@dataclass(frozen=True)
class ObjectInfo:
    """One version of one object.

    Attributes:
        url: where it is.
        size: in bytes.
        tag: changes whenever the bytes do: S3's ETag, a file's time of modification and size.
        version_id: S3's, "" where the bucket keeps no versions.
        owner: the identity of the job whose output it is, "" where that is not known.
    """

    url: str
    size: int
    tag: str
    version_id: str = ""
    owner: str = ""

    @property
    def version(self) -> str:
        """What tells this version from any other at its URL."""
        return self.version_id or self.tag


@dataclass
class UploadState:
    """An upload put aside, as a checkpoint keeps it.

    Attributes:
        upload: what was stored so far, as JSON.
        head: bytes held back until the end.
        tail: bytes that did not fill a part yet.
    """

    upload: dict[str, object]
    head: bytes = b""
    tail: bytes = b""


class Upload(Protocol):
    """An output on its way: invisible until it is committed, and then there as a whole."""

    size: int

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes."""

    def commit(self, head: bytes | None = None) -> None:
        """Make the output visible, unless there is one.

        Args:
            head: replaces as many bytes at the start, for formats that say there what only the end knows.

        Raises:
            OutputExistsError: another run was first. This one's bytes are gone.
        """

    def suspend(self) -> UploadState:
        """Put the upload aside for another process to go on with."""

    def abort(self) -> None:
        """Throw away what was written; safe to call at any time."""


class Objects(Protocol):
    """A place for objects.

    What cannot be read is an `InputNotFoundError` or `InputRefusedError`, what cannot be written an
    `OutputNotFoundError` or `OutputRefusedError`, either a `StoreAccessError` or `StoreUnavailableError`.
    """

    def head(self, url: str, version_id: str = "") -> ObjectInfo | None:
        """What is at a URL; None when there is nothing."""

    def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of that very version.

        Raises:
            InputReplacedError: it is another version now.
        """

    def list(self, url: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """All objects whose URL starts with `url`, in order, after the URL `start_after`."""

    def get(self, url: str) -> tuple[bytes, str] | None:
        """A small object and its tag; None when there is none."""

    def put(self, url: str, data: bytes, *, tag: str | None = None, owner: str = "") -> bool:
        """Write a small object.

        Args:
            url: where to.
            data: its bytes.
            tag: only over the object of this tag; "" only where there is none; None over anything.
            owner: see `ObjectInfo`.

        Returns:
            Whether it was written. Where the answer to an earlier try was lost, false may mean that one: look at what
            is there.
        """

    def delete(self, url: str) -> None:
        """Delete an object; one that is not there is no error."""

    def upload(
        self,
        url: str,
        part_bytes: int,
        state: UploadState | None = None,
        *,
        hold_head: bool = False,
        replace: bool = False,
        owner: str = "",
    ) -> Upload:
        """Start an upload, or go on with a suspended one.

        Args:
            url: where to.
            part_bytes: size of every part but the last. Parts are cut at multiples of it, so that two processes that
                go on from the same state write the same parts.
            state: of the suspended upload.
            hold_head: keep the first part back until `commit`.
            replace: commit over an output that is there.
            owner: see `ObjectInfo`.
        """


def part_bytes_for(input_bytes: int) -> int:
    """A part size with which any output of reasonable size stays below S3's number of parts."""
    return max(MIN_PART_BYTES, -(-input_bytes * 8 // _MAX_PARTS))


_s3: Objects | None = None


def objects_for(url: str) -> Objects:
    """The place that a URL names.

    Raises:
        JobError: neither file:// nor s3://.
    """
    global _s3  # noqa: PLW0603 - one client, whose connections are reused
    if url.startswith("file:///"):
        from litelambda_serving.scoring.storage.files import FileObjects

        return FileObjects()
    if url.startswith("s3://") and url[5:].partition("/")[0]:
        if _s3 is None:
            from litelambda_serving.scoring.storage.s3 import S3Objects

            _s3 = S3Objects()
        return _s3
    raise JobError(f"{url!r} is neither s3://bucket/key nor file:///path")


def forget_clients() -> None:
    """Drop the S3 client, for a process whose endpoint or credentials changed."""
    global _s3  # noqa: PLW0603 - see objects_for
    _s3 = None


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of an S3 URL."""
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def to_url(path_or_url: str) -> str:
    """A path as a file URL, a folder's with a slash at its end; a URL as it is."""
    if "://" in path_or_url:
        return path_or_url
    path = Path(path_or_url).absolute()
    folder = path_or_url.endswith("/") or path.is_dir()
    return "file://" + quote(os.fsencode(path)) + ("/" if folder and str(path) != "/" else "")
