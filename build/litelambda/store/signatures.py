"""What is done with a version that is published: signing it, checking who signed it, decrypting a file of it."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

from litelambda.common.errors import PublishError, UsageError
from litelambda.store.model_signing import make_bundle, pinned_digests
from litelambda.store.reading import open_reader
from litelambda.store.signing import one_line
from litelambda_serving.artifact import fetch_manifest
from litelambda_serving.artifact.decryption import DataKey
from litelambda_serving.artifact.unpack import unpack
from litelambda_serving.errors import DigestError, TrustError
from litelambda_serving.manifest import ENCRYPTED
from litelambda_serving.objects import objects_for
from litelambda_serving.trust import BUNDLE_NAME, SIGNATURE_NAME, Trust, read_public_keys
from litelambda_serving.trust.bundle import signed_digests

if TYPE_CHECKING:
    from collections.abc import Mapping

    from litelambda.store.artifact_store import Store
    from litelambda.store.signing import Signer

__all__ = ["decrypt_file", "replace_signatures", "sign_version", "verify_version"]


def sign_version(store: Store, reference: str, signer: Signer) -> tuple[str, int]:
    """Sign what `NAME`, `NAME@ALIAS` or `NAME:VERSION` means now, over an earlier signature.

    Returns:
        The model and the version.

    Raises:
        UsageError: see `Store.resolve`.
        PublishError: the version does not exist, or another writer was first.
    """
    name, version = store.resolve(reference)
    manifest = store.read_manifest(name, version)
    signatures = {SIGNATURE_NAME: signer.sign(manifest), BUNDLE_NAME: make_bundle(manifest, signer)}
    replace_signatures(store, name, version, signatures, f"signed with {one_line(signer.public_key())}")
    return name, version


def replace_signatures(store: Store, name: str, version: int, signatures: Mapping[str, bytes], signed: str) -> None:
    """Write the signatures of a version that is published.

    Args:
        store: where it is.
        name: of the model.
        version: its number.
        signatures: by the names of their files.
        signed: what the store's audit trail says of them.

    Raises:
        PublishError: the version does not exist, or another writer was first.
    """
    manifest = store.read_manifest(name, version)
    folder = f"{store.url.rstrip('/')}/{name}/{version}"
    objects = objects_for(f"{folder}/")
    tags = {file: found[1] if (found := objects.get(f"{folder}/{file}")) else "" for file in signatures}
    moved = "signed" if any(tags.values()) else "unsigned", signed
    fields = {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "signature": "valid"}
    with store.trail.recording("sign", model=name, version=version, moved=moved, **fields):
        for file, signature in signatures.items():
            if not objects.put(f"{folder}/{file}", signature, tag=tags[file]):
                raise PublishError(f"version {version} of {name} was signed by another at the same time: sign it again")


def verify_version(store: Store, reference: str, public_key: str) -> tuple[str, int, int]:
    """Check the signature and every file of what `NAME`, `NAME@ALIAS` or `NAME:VERSION` means now.

    Args:
        store: where it is.
        reference: see `Store.resolve`.
        public_key: as MODEL_PUBLIC_KEY has it; a path may be relative to the current directory.

    Returns:
        The model, the version and the number of its files.

    Raises:
        UsageError: see `Store.resolve`.
        SettingsError: the key is not one.
        TrustError: it is not signed with that key.
        ModelNotFoundError: the store has no such version.
        ArtifactError, StoreError: a file is missing, or not what the manifest pins.
    """
    name, version = store.resolve(reference)
    reader = open_reader(store.url)
    path = Path(public_key)
    reader.trust = Trust(read_public_keys(str(path.resolve()) if path.is_file() else public_key))
    manifest = fetch_manifest(reader, name, version)
    _check_bundle(store, reader.trust.public_keys, name, version)
    for file, pin in manifest.files.items():
        content = store.read_file(name, version, file)
        if (len(content), hashlib.sha256(content).hexdigest()) != (pin.size_bytes, pin.sha256):
            raise DigestError(f"{store.url}/{name}/{version}/{file} is not what the manifest pins")
    return name, version, len(manifest.files)


def _check_bundle(store: Store, public_keys: tuple[bytes, ...], name: str, version: int) -> None:
    """Check the bundle of OpenSSF model signing, if there is one: other tools than ours ask it alone."""
    where = f"{store.url.rstrip('/')}/{name}/{version}/{BUNDLE_NAME}"
    found = objects_for(where).get(where)
    if found is None:
        return
    pinned = pinned_digests(store.read_manifest(name, version))
    signed = signed_digests(found[0], public_keys, where)
    if others := sorted({file for file, digest in pinned.items() if signed.get(file) != digest}):
        raise TrustError(f"{where} does not sign {', '.join(others)} as the manifest pins them: sign the version again")


def decrypt_file(store: Store, reference: str, file: str, key: str) -> bytes:
    """A file of what `NAME`, `NAME@ALIAS` or `NAME:VERSION` means now, neither encrypted nor compressed.

    Args:
        store: where it is.
        reference: see `Store.resolve`.
        file: its name in the manifest's `files`.
        key: the file with the key, relative to the current directory; "" for a key of KMS.

    Raises:
        UsageError: see `Store.resolve`; or the version has no such file.
        TrustError: the key does not open it.
        ArtifactError, StoreError: it is missing, or not what the manifest pins.
    """
    name, version = store.resolve(reference)
    reader = open_reader(store.url)
    if key:
        reader.trust = Trust(decryption_key=str(Path(key).absolute()))
    manifest = fetch_manifest(reader, name, version)
    if file not in manifest.files:
        raise UsageError(f"{name} version {version} has no file {file!r}; it has {', '.join(manifest.files)}")
    entry, content = manifest.files[file], store.read_file(name, version, file)
    decrypter = None
    if entry.encoding == ENCRYPTED:
        decrypter = DataKey(manifest, reader.trust).decrypter(file)
    return bytes(unpack(content, entry, f"{store.url}/{name}/{version}/{file}", decrypter))
