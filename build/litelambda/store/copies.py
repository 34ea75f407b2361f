"""Copying a version from one store to another: the same files under the same number, so that its digest pins both."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

from litelambda.common.errors import PublishError
from litelambda.store.artifact_store import Store
from litelambda.store.signatures import replace_signatures
from litelambda_serving.errors import DigestError, ObjectNotFoundError
from litelambda_serving.trust import BUNDLE_NAME, SIGNATURE_NAME

__all__ = ["Version", "copy_version", "find_version", "signatures_of"]


@dataclass(frozen=True)
class Version:
    """A version that is to be copied.

    Attributes:
        store: where it is.
        model: its name.
        number: its number.
        manifest: byte by byte.
    """

    store: Store
    model: str
    number: int
    manifest: bytes

    @property
    def digest(self) -> str:
        """SHA-256 of the manifest, which pins all the rest."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def fields(self) -> dict[str, Any]:
        """The manifest's."""
        found: dict[str, Any] = json.loads(self.manifest)
        return found


def find_version(store: Store, reference: str) -> Version:
    """What `NAME`, `NAME@ALIAS` or `NAME:VERSION` means now.

    Raises:
        UsageError, PublishError: the store has no such model, alias or version.
        StoreError: it cannot be read.
    """
    model, number = store.resolve(reference)
    return Version(store, model, number, store.read_manifest(model, number))


def copy_version(version: Version, target: Store) -> bool:
    """Publish a version in another store, and point `latest` there at it, unless that is at a later one.

    What an interrupted copy left there is completed, and a version that was signed since gets its signatures.

    Returns:
        Whether anything was written: the version may be there already.

    Raises:
        PublishError: the other store has another version of that number.
        DigestError: a file is not what the manifest pins.
        StoreError: a store refused.
    """
    place = f"{version.model}/{version.number}"
    if version.number in target.list_versions(version.model):
        if target.read_manifest(version.model, version.number) != version.manifest:
            raise _taken(place, target)
        changed = {name: each for name, each in signatures_of(version).items() if each != _read(target, version, name)}
        if changed:
            replace_signatures(target, version.model, version.number, changed, f"signed as in {version.store.url}")
        target.advance_alias(version.model, "latest", version.number)
        return bool(changed)
    files = {}
    for name, content in _files(version).items():
        there = _read(target, version, name)
        if there is not None and there != content:
            raise _taken(place, target)
        if there is None:
            files[name] = content
    target.publish(version.model, version.number, files, version.manifest)
    target.advance_alias(version.model, "latest", version.number)
    return True


def _files(version: Version) -> dict[str, bytes]:
    """The contents that the manifest pins, checked, and the signatures, where it is signed."""
    pins = version.fields["files"]
    files = {name: version.store.read_file(version.model, version.number, name) for name in pins}
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != pins[name]["sha256"]:
            raise DigestError(f"{version.store.url}/{version.model}/{version.number}/{name} is not what it should be")
    return {**files, **signatures_of(version)}


def signatures_of(version: Version) -> dict[str, bytes]:
    """The files with a version's signatures; none where it is not signed."""
    found = {name: _read(version.store, version, name) for name in (SIGNATURE_NAME, BUNDLE_NAME)}
    return {name: content for name, content in found.items() if content is not None}


def _read(store: Store, version: Version, name: str) -> bytes | None:
    try:
        return store.read_file(version.model, version.number, name)
    except ObjectNotFoundError:
        return None


def _taken(place: str, target: Store) -> PublishError:
    return PublishError(
        f"{target.url} has another {place}: build or import with --store {target.url}, which takes the next number"
    )
