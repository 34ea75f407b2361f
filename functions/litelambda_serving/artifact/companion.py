"""Fetching a file of a version that INIT does not need, checked and decrypted as the model is."""

from __future__ import annotations

from litelambda_serving.artifact import check_pin, data_key_of, decrypter_of
from litelambda_serving.errors import ArtifactError, ManifestError, ObjectNotFoundError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.store import Store

__all__ = ["fetch_file"]

_MAX_BYTES = 2 * 1024**3


def fetch_file(store: Store, manifest: Manifest, name: str) -> Buffer:
    """Fetch one of a version's files.

    Args:
        store: where the version is.
        manifest: of the version, verified.
        name: of the file.

    Raises:
        ManifestError: the manifest does not list it.
        DigestError: the bytes are not those that were pinned.
        ArtifactError: the version is incomplete, or the file does not unpack to what was pinned.
        TrustError: it cannot be decrypted.
        StoreError: see `Store.fetch`.
    """
    entry = manifest.files.get(name)
    if entry is None:
        raise ManifestError(f"manifest field explain names {name[:40]!r}, which files does not list")
    key = f"{manifest.model}/{manifest.version}/{name}"
    data_key = data_key_of(store, manifest) if "encryption" in manifest.fields else None
    try:
        data, digest = store.fetch_digested(key, _MAX_BYTES)
    except ObjectNotFoundError as error:
        raise ArtifactError(
            f"version {manifest.version} of model {manifest.model} is published, but incomplete: {error}"
        ) from error
    check_pin(data, digest, entry, f"{store.url}/{key}")
    if not entry.encoding:
        return data
    from litelambda_serving.artifact.unpack import unpack

    return unpack(data, entry, f"{store.url}/{key}", decrypter_of(manifest, name, data_key))
