"""What files and S3 have in common: an object, a place for objects, and an upload."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["ObjectInfo", "Objects", "Upload", "UploadState", "chunks_of", "part_bytes_for", "path_of", "split_url"]

CHUNK_BYTES = 1024 * 1024
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
    """A suspended upload, as a checkpoint keeps it.

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
            StoreConflictError: another writer was first. What this one wrote is gone.
            LostUploadError: what was resumed is gone: committed by another process, or removed.
        """

    def suspend(self) -> UploadState:
        """Put the upload aside for another process to resume."""

    def abort(self) -> None:
        """Discard what was written; safe to call at any time."""


class Objects(Protocol):
    """A place for objects.

    Whatever is asked of it may end in a `StoreError`: `StoreLocationError` where the bucket does not exist,
    `StoreAccessError` where rights or credentials are missing, `ObjectRefusedError` for what another try does not
    change, `StoreUnavailableError` for what it may.
    """

    def head(self, url: str, version_id: str = "") -> ObjectInfo | None:
        """What is at a URL; None when there is nothing."""

    def read(self, info: ObjectInfo, start: int, stop: int) -> bytes:
        """The bytes [start, stop) of that very version.

        Raises:
            ObjectNotFoundError: it is gone.
            ObjectReplacedError: it is another version now.
        """

    def list(self, url: str, start_after: str = "") -> Iterator[ObjectInfo]:
        """All objects whose URL starts with `url`, in order, after the URL `start_after`."""

    def folders(self, url: str) -> Sequence[str]:
        """Names of the folders directly below a URL that ends with a slash, sorted."""

    def get(self, url: str) -> tuple[bytes, str] | None:
        """A small object, and a tag that `put` takes; None when there is none."""

    def put(self, url: str, data: bytes | Path, *, tag: str | None = None, owner: str = "") -> bool:
        """Write an object.

        Args:
            url: where to.
            data: its bytes, or a file of them.
            tag: only over the object that `get` gave this tag; "" only where there is none; None over anything.
            owner: see `ObjectInfo`.

        Returns:
            Whether what is there now was written by this call, even where S3's first answer to it was lost.
        """

    def delete(self, url: str) -> None:
        """Delete an object; a missing one is not an error."""

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
        """Start an upload, or resume a suspended one.

        Args:
            url: where to.
            part_bytes: size of every part but the last. Parts are cut at multiples of it, so that two processes that
                resume from the same state write the same parts.
            state: of the suspended upload.
            hold_head: keep the first part back until `commit`.
            replace: commit over an output that is there.
            owner: see `ObjectInfo`.
        """


def part_bytes_for(input_bytes: int) -> int:
    """A part size with which any output of reasonable size stays below S3's number of parts.

    >>> part_bytes_for(1000)
    8388608
    """
    return max(MIN_PART_BYTES, -(-input_bytes * 8 // _MAX_PARTS))


def split_url(url: str) -> tuple[str, str]:
    """Bucket and key of an S3 URL.

    >>> split_url("s3://bucket/folder/rows.jsonl")
    ('bucket', 'folder/rows.jsonl')
    """
    bucket, _, key = url.removeprefix("s3://").partition("/")
    return bucket, key


def path_of(url: str) -> Path:
    """The path of a file URL.

    >>> path_of("file:///data/my%20rows.jsonl")
    PosixPath('/data/my rows.jsonl')
    """
    return Path(os.fsdecode(unquote_to_bytes(url.removeprefix("file://"))))


def chunks_of(data: bytes | Path) -> Iterator[bytes]:
    """What an object is to hold, some at a time where it is in a file."""
    if isinstance(data, bytes):
        yield data
        return
    with data.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
