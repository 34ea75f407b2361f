"""Reading a store as the function does, with the credentials of this machine's user."""

from __future__ import annotations

from typing import TYPE_CHECKING

from litelambda.common.aws import export_credentials
from litelambda_serving.store import open_store

if TYPE_CHECKING:
    from litelambda_serving.store import Store as Reader

__all__ = ["open_reader"]


def open_reader(url: str) -> Reader:
    """Open a store for reading; see `litelambda_serving.store.open_store`.

    Raises:
        SettingsError: not a store's URL.
        UsageError: it is in S3, and credentials are missing, or the profile does not exist.
    """
    export_credentials(url)
    return open_store(url)
