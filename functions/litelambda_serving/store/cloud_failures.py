"""Why Google Cloud Storage or Azure Blob Storage failed, as one of our errors: loaded with the first failure.

Only the code of the answer is taken from obstore's text, which can also name hosts and headers.

Sources: cloud.google.com/storage/docs/xml-api/reference-status,
learn.microsoft.com/rest/api/storageservices/blob-service-error-codes
"""

from __future__ import annotations

import re

from litelambda_serving.errors import (
    ObjectNotFoundError,
    StoreAccessError,
    StoreError,
    StoreLocationError,
    StoreUnavailableError,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["translate"]

_CODE = re.compile(r"<Code>([A-Za-z0-9.]{1,64})</Code>")
_NO_BUCKET = ("NoSuchBucket", "ContainerNotFound", "ContainerBeingDeleted", "InvalidBucketName", "InvalidResourceName")
_NO_CREDENTIALS = ("Error performing token request", "Error getting token response")

_NAMES = {"gs": "Google Cloud Storage", "az": "Azure Blob Storage"}
_CREDENTIALS = {
    "gs": "run it as a service account, or set GOOGLE_APPLICATION_CREDENTIALS to the key file of one",
    "az": "run it with a managed identity, or set AZURE_STORAGE_ACCOUNT_KEY, AZURE_STORAGE_SAS_TOKEN, or "
    "AZURE_CLIENT_ID, AZURE_CLIENT_SECRET and AZURE_TENANT_ID",
}
_READING = {
    "gs": "grant the service account the role Storage Object Viewer on the bucket",
    "az": "check the key, or grant the identity the role Storage Blob Data Reader on the container",
}
_WRITING = {
    "gs": "grant the service account the role Storage Object User on the bucket",
    "az": "check the key, or grant the identity the role Storage Blob Data Contributor on the container",
}
_REMEDIES = {
    "BlobArchived": "it is archived: rehydrate it to a tier that can be read at once",
    "AccountIsDisabled": "the storage account is disabled: enable it",
    "UserProjectAccountProblem": "the project has no billing account that works: set one",
}


def translate(error: Exception, exceptions: Any, name: str, scheme: str, *, writing: bool = False) -> StoreError:
    """Turn obstore's error into one of ours.

    Args:
        error: what obstore raised.
        exceptions: obstore's own classes.
        name: URL of what was read or written.
        scheme: "gs" or "az".
        writing: whether it was written.
    """
    text, cloud, verb = str(error), _NAMES[scheme], "write" if writing else "read"
    found = _CODE.search(text)
    code = found[1] if found else ""
    is_missing = isinstance(error, (exceptions.NotFoundError, FileNotFoundError))
    if code in _NO_BUCKET or (is_missing and writing):
        kind = "bucket" if scheme == "gs" else "container"
        return StoreLocationError(f"the {kind} of {name} does not exist: create it, or correct the store URL")
    if is_missing:
        return ObjectNotFoundError(f"no object {name}")
    if any(sign in text for sign in _NO_CREDENTIALS):
        return StoreAccessError(f"no credentials were found for {name}: {_CREDENTIALS[scheme]}")
    remedy = _REMEDIES.get(code)
    if isinstance(error, (exceptions.PermissionDeniedError, exceptions.UnauthenticatedError)):
        remedy = remedy or (_WRITING if writing else _READING)[scheme]
    if remedy:
        return StoreAccessError(f"{cloud} refused to {verb} {name}{f' ({code})' if code else ''}: {remedy}")
    if "kind: Connect" in text:
        account = ": check the name of the storage account" if scheme == "az" else ""
        return StoreUnavailableError(f"{cloud} could not be reached for {name}, retries included{account}")
    return StoreUnavailableError(f"{cloud} could not {verb} {name} ({code or type(error).__name__}), retries included")
