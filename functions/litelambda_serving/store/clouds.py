"""Stores in Google Cloud Storage (`gs://`) and Azure Blob Storage (`az://`): loaded for these alone.

Credentials are found as obstore finds them, which is as these clouds' own tools do: in their variables, in a file that
GOOGLE_APPLICATION_CREDENTIALS or AZURE_FEDERATED_TOKEN_FILE names, or from the machine's metadata server.
"""

from __future__ import annotations

import os
import re

from litelambda_serving.errors import SettingsError, StoreError
from litelambda_serving.s3_store import S3Store

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["CloudStore", "endpoint_of", "open_client", "split_azure_url"]

_AZURE_HOST = re.compile(r"([a-z0-9]{3,24})(?:\.(?:blob|dfs)\.core\.windows\.net)?")
_REASON = re.compile(r"Generic \w+ error: ([^\n]+)")


def split_azure_url(url: str) -> tuple[str, str]:
    """Split an Azure URL into container, with "@account" where the URL names one, and path.

    Raises:
        SettingsError: not the URL of a container.

    >>> split_azure_url("az://container/models/"), split_azure_url("az://container@account/models")
    (('container', 'models/'), ('container@account', 'models'))
    >>> split_azure_url("abfss://container@account.dfs.core.windows.net/models")
    ('container@account', 'models')
    """
    scheme, _, rest = url.partition("://")
    place, _, path = rest.partition("/")
    if scheme == "https":
        host = place
        place, _, path = path.partition("/")
        place = f"{place}@{host}" if "." in host else ""
    container, at, account = place.partition("@")
    found = _AZURE_HOST.fullmatch(account)
    if not container or (at and not found):
        raise SettingsError(
            f"store URL {url!r}: expected az://container/prefix, az://container@account/prefix or "
            "https://account.blob.core.windows.net/container/prefix; set AZURE_STORAGE_ENDPOINT for another endpoint"
        )
    return f"{container}@{found[1]}" if found else container, path


def endpoint_of(scheme: str) -> str:
    """The endpoint that the environment names instead of the cloud's own, "" for none."""
    names = ("GOOGLE_BASE_URL",) if scheme == "gs" else ("AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
    return next((value for name in names if (value := os.environ.get(name))), "")


def open_client(native: Any, scheme: str, bucket: str, **options: Any) -> Any:
    """Make obstore's client; no connection is made yet.

    Args:
        native: obstore's module.
        scheme: "gs" or "az".
        bucket: of `split_store_url`.
        options: of the client.

    Raises:
        SettingsError: the environment has no account, or credentials that cannot be read.
    """
    try:
        if scheme == "gs":
            return native._store.GCSStore(bucket, **options)
        container, at, account = bucket.partition("@")
        named = {"account_name": account} if at else {}
        return native._store.AzureStore(container, **named, **options)
    except (native.exceptions.BaseError, ValueError) as error:
        found = _REASON.search(str(error))
        reason = found[1] if found else str(error)
        raise SettingsError(f"{scheme}://{bucket}: {reason}{_remedy(reason)}") from error


def _remedy(reason: str) -> str:
    if "Account must be specified" in reason:
        return ": set AZURE_STORAGE_ACCOUNT_NAME, or write az://container@account/prefix"
    if "Invalid Access Key" in reason:
        return ": copy AZURE_STORAGE_ACCOUNT_KEY again from the account's access keys"
    if "service account file" in reason:
        return ": GOOGLE_APPLICATION_CREDENTIALS takes the key file of a service account, or what gcloud auth writes"
    return ""


class CloudStore(S3Store):
    """A prefix in a bucket of Google Cloud Storage, or in a container of Azure Blob Storage."""

    def __init__(self, url: str, scheme: str, bucket: str, prefix: str) -> None:
        self._scheme = scheme
        super().__init__(url, bucket, prefix)

    def reopen(self) -> None:
        """Forget connections and credentials; see `Store.reopen`."""
        self._client = open_client(self._native, self._scheme, self._bucket, **self._options(endpoint_of(self._scheme)))

    def _translated(self, error: Exception, key: str) -> StoreError:
        from litelambda_serving.store.cloud_failures import translate

        return translate(error, self._native.exceptions, f"{self.url}/{key}", self._scheme)
