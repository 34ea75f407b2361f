"""What can go wrong with an object, besides what `litelambda_serving.errors` knows.

StoreError
├── ObjectReplacedError    it is another version now
├── ObjectRefusedError     S3 refuses to read or write it, however often it is tried: archived, its key disabled
└── LostUploadError        the upload to resume is gone
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from litelambda_serving.errors import ObjectNotFoundError, StoreAccessError, StoreError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

__all__ = ["LostUploadError", "ObjectRefusedError", "ObjectReplacedError", "file_errors"]


class ObjectReplacedError(StoreError):
    """The object is no longer the version that was asked for."""


class ObjectRefusedError(StoreError):
    """S3 refuses to read or write the object, for a reason that another try does not change."""


class LostUploadError(StoreError):
    """The suspended upload that was to be resumed is gone."""


@contextmanager
def file_errors(verb: str, path: Path) -> Iterator[None]:
    """Turn the system's errors into the store's."""
    try:
        yield
    except PermissionError as error:
        raise StoreAccessError(f"no right to {verb} {path}") from error
    except OSError as error:
        if verb == "read" and isinstance(error, (FileNotFoundError, NotADirectoryError)):
            raise ObjectNotFoundError(f"there is no {path}") from error
        raise StoreError(f"cannot {verb} {path}: {error}") from error
