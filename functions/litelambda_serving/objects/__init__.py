"""Objects that are read and written, as local files or in a cloud: what batch scoring and publishing have in common.

    base      what an object, a place for objects and an upload are
    files     in local folders
    s3        in S3, through boto3, whose multipart uploads can be suspended
    clouds    in Google Cloud Storage and Azure Blob Storage, through obstore; for publishing alone
    errors    what may go wrong besides `litelambda_serving.errors`

Every write is conditional where its caller asks for that, and visible as a whole or not at all. URLs are whole
(`s3://bucket/key`, `file:///path`), since a job may read here and write there. The prediction path never loads this.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from litelambda_serving.errors import SettingsError
from litelambda_serving.store import check_bucket

if TYPE_CHECKING:
    from litelambda_serving.objects.base import Objects

__all__ = ["objects_for", "to_url"]

_s3: Objects | None = None
_clouds: Objects | None = None


def objects_for(url: str) -> Objects:
    """The place that a URL names.

    Raises:
        SettingsError: it names none, or a bucket that is not taken.
    """
    global _s3, _clouds  # noqa: PLW0603 - one client each, whose connections are reused
    if url.startswith("file:///"):
        from litelambda_serving.objects.files import FileObjects

        return FileObjects()
    if url.startswith("s3://") and (bucket := url[5:].partition("/")[0]):
        check_bucket(url, bucket)
        if _s3 is None:
            from litelambda_serving.objects.s3 import S3Objects

            _s3 = S3Objects()
        return _s3
    if url.startswith(("gs://", "az://")) and url[5:].partition("/")[0]:
        if _clouds is None:
            from litelambda_serving.objects.clouds import CloudObjects

            _clouds = CloudObjects()
        return _clouds
    raise SettingsError(f"{url!r}: expected file:///path, s3://bucket/key, gs://bucket/key or az://container/key")


def to_url(path_or_url: str) -> str:
    """A path as a file URL, a folder's with a slash at its end; a URL as it is.

    >>> to_url("/data/my rows.jsonl")
    'file:///data/my%20rows.jsonl'
    >>> to_url("s3://bucket/rows.jsonl")
    's3://bucket/rows.jsonl'
    """
    if "://" in path_or_url:
        return path_or_url
    path = Path(path_or_url).absolute()
    folder = path_or_url.endswith("/") or path.is_dir()
    return "file://" + quote(os.fsencode(path)) + ("/" if folder and str(path) != "/" else "")
