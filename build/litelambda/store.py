"""The publishing side of an artifact store: its layout and its promises, on a folder or on S3.

    <model>/<version>/manifest.json    written after the files it lists: a version without it does not exist
    <model>/<version>/model.tflite     … and what else the manifest lists
    <model>/aliases.json               replaced whole, last

Versions are positive numbers and immutable. The next one is the highest that was ever begun plus one: what a killed
publisher left behind uses its number up, and no reader sees it.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from litelambda.errors import PublishError
from litelambda.objects import ObjectStore, open_objects
from serving.aliases import ALIASES_NAME, RESERVED_NAMES
from serving.artifact import MANIFEST_NAME
from serving.errors import ObjectNotFoundError, StoreConflictError
from serving.manifest import is_valid_name

_ATTEMPTS = 20
_PAUSE_S = 0.05

Document = dict[str, Any]


def open_publishing_store(url: str) -> ArtifactStore:
    """Open a `file:///…` or `s3://bucket/prefix` store for publishing.

    Raises:
        SettingsError: not a store URL.
    """
    return ArtifactStore(open_objects(url))


class ArtifactStore:
    """Models, their versions and their aliases.

    Attributes:
        url: the store's URL.
    """

    def __init__(self, objects: ObjectStore) -> None:
        self.url = objects.url
        self._objects = objects

    def list_models(self) -> list[str]:
        """Names of all models that have a published version."""
        return [name for name in self._objects.folders("") if is_valid_name(name) and self.list_versions(name)]

    def list_versions(self, model: str) -> list[int]:
        """Published versions of a model, ascending."""
        pattern = re.compile(re.escape(f"{model}/") + r"([1-9]\d*)/" + re.escape(MANIFEST_NAME))
        found = (pattern.fullmatch(key) for key in self._objects.keys(f"{model}/"))
        return sorted(int(match[1]) for match in found if match)

    def next_version(self, model: str) -> int:
        """The number that the next publisher of a model should take."""
        begun = (int(name) for name in self._objects.folders(f"{model}/") if name.isdecimal())
        return max(begun, default=0) + 1

    def publish(self, model: str, version: int, files: Mapping[str, bytes | Path], manifest: bytes) -> None:
        """Write a version: its files, then the manifest that makes it readable.

        Raises:
            PublishError: the number is taken; nothing of the other publisher's is touched.
            StoreError: the store refused.
        """
        folder = f"{model}/{version}"
        try:
            for name, content in files.items():
                self._objects.create(f"{folder}/{name}", content)
            self._objects.create(f"{folder}/{MANIFEST_NAME}", manifest)
        except StoreConflictError as error:
            raise PublishError(
                f"version {version} of {model} was taken by another publisher ({error}); "
                "nothing of this one can be read; publish again to get the next number"
            ) from error

    def read_manifest(self, model: str, version: int) -> bytes:
        """The manifest of a version, byte by byte.

        Raises:
            PublishError: no such version.
        """
        try:
            return self._objects.read(f"{model}/{version}/{MANIFEST_NAME}")[0]
        except ObjectNotFoundError:
            versions = ", ".join(map(str, self.list_versions(model))) or "none"
            raise PublishError(f"{model} has no version {version} in {self.url}; it has {versions}") from None

    def read_file(self, model: str, version: int, name: str) -> bytes:
        """A file of a version.

        Raises:
            ObjectNotFoundError: there is none of that name.
        """
        return self._objects.read(f"{model}/{version}/{name}")[0]

    def read_aliases(self, model: str) -> dict[str, int]:
        """The aliases of a model; empty where it has none."""
        document, _ = self._read_aliases(model)
        return {name: target for name, target in document.items() if name not in RESERVED_NAMES}

    def set_alias(self, model: str, alias: str, version: int) -> None:
        """Point an alias at a published version, forward or back.

        Raises:
            PublishError: no such version, the name is not allowed, or other writers never let this one through.
        """
        self._change_alias(model, alias, version, lambda _: True)

    def advance_alias(self, model: str, alias: str, version: int) -> None:
        """Point an alias at a version unless it points at a later one: a slow publisher does not turn it back.

        Raises:
            PublishError: as `set_alias`.
        """
        self._change_alias(model, alias, version, lambda current: current is None or current < version)

    def _change_alias(self, model: str, alias: str, version: int, wanted: Callable[[int | None], bool]) -> None:
        if not is_valid_name(alias) or alias.isdecimal() or alias in RESERVED_NAMES:
            raise PublishError(f"{alias!r} cannot be an alias: letters, digits, _ . and - make one, a number does not")
        manifest = self.read_manifest(model, version)
        pin = {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "artifact": json.loads(manifest)["artifact"]}
        for _ in range(_ATTEMPTS):
            document, tag = self._read_aliases(model)
            if not wanted(document.get(alias)):
                return
            document[alias] = version
            _pin(document, version, pin)
            try:
                content = json.dumps(document, separators=(",", ":")).encode()
                self._objects.replace(f"{model}/{ALIASES_NAME}", content, tag)
            except StoreConflictError:
                time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311 - only spreads the writers
            else:
                return
        raise PublishError(
            f"{model}/{ALIASES_NAME} in {self.url} changes all the time: {alias} was not moved; try again"
        )

    def _read_aliases(self, model: str) -> tuple[Document, str | None]:
        try:
            content, tag = self._objects.read(f"{model}/{ALIASES_NAME}")
        except ObjectNotFoundError:
            return {}, None
        document: Document = json.loads(content)
        return document, tag


def _pin(document: Document, version: int, pin: Mapping[str, str]) -> None:
    """Add what a side-by-side fetch of a version needs; drop the pins that nothing points at any more."""
    pins = {**document.get("versions", {}), str(version): pin}
    targets = {str(target) for name, target in document.items() if name not in RESERVED_NAMES}
    targets |= {number for shares in document.get("canary", {}).values() for number in shares}
    targets |= {str(target) for target in document.get("shadow", {}).values()}
    document["versions"] = {number: pins[number] for number in sorted(targets & set(pins), key=int)}
