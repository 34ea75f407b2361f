"""The model of a job: which version is meant, pinned by its digest before the first row."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from litelambda_serving import audit
from litelambda_serving.aliases import fetch_aliases
from litelambda_serving.artifact import fetch_artifact, fetch_manifest
from litelambda_serving.errors import ArtifactError, ModelNotFoundError
from litelambda_serving.manifest import is_valid_name
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from litelambda_serving.manifest import Manifest
    from litelambda_serving.store import Store

__all__ = ["LoadedModel", "ModelSource", "Pin", "parse_reference"]


@dataclass(frozen=True)
class Pin:
    """One version of a model, and what its manifest must hash to."""

    name: str
    version: int
    digest: str

    def to_dict(self) -> dict[str, str | int]:
        """As JSON."""
        return {"name": self.name, "version": self.version, "digest": self.digest}


@dataclass(frozen=True)
class LoadedModel:
    """A verified artifact.

    Attributes:
        pin: which one it is.
        manifest: its manifest.
        artifact: the flatbuffer.
        assets: contents of the manifest's `assets`, by name.
    """

    pin: Pin
    manifest: Manifest
    artifact: bytes
    assets: dict[str, bytes]


def parse_reference(reference: str) -> tuple[str, str]:
    """Split NAME, NAME@alias or NAME:version into the name and the version number or alias.

    >>> parse_reference("mnist"), parse_reference("mnist@stable"), parse_reference("mnist:7")
    (('mnist', 'latest'), ('mnist', 'stable'), ('mnist', '7'))

    Raises:
        JobError: it is none of these.
    """
    name, at, alias = reference.partition("@")
    if not at:
        name, colon, alias = reference.partition(":")
        if colon and not alias.isdecimal():
            raise JobError(f"model {reference!r}: expected NAME, NAME@alias or NAME:version")
        alias = alias or "latest"
    if not is_valid_name(name) or not is_valid_name(alias):
        raise JobError(f"model {reference!r}: expected NAME, NAME@alias or NAME:version")
    return name, alias


class ModelSource:
    """The models of a store; the last one that was loaded stays."""

    def __init__(
        self,
        store_url: str,
        max_age_s: float = 0.0,
        digests: Mapping[str, str] | None = None,
        *,
        audited: bool = False,
    ) -> None:
        """Open a store.

        Args:
            store_url: see `litelambda_serving.store.open_store`.
            max_age_s: how old the meaning of an alias may be, which saves reading it for every small file.
            digests: by reference, what the manifest must hash to; with one, no other version is scored with.
            audited: whether versions that are loaded or refused are recorded on stdout, as a function does.
        """
        self.url = store_url
        self._max_age_s = max_age_s
        self._audited = audited
        self._digests = {parse_reference(reference): digest for reference, digest in (digests or {}).items() if digest}
        self._pins: dict[str, tuple[float, Pin]] = {}
        self._store: Store = open_store(store_url)
        self._loaded: LoadedModel | None = None
        self._lock = threading.Lock()

    def pin(self, reference: str) -> Pin:
        """What a reference means now; an alias may mean something else a minute later.

        Raises:
            ModelNotFoundError: there is no such model, version or alias.
            StoreError: the store cannot be read.
        """
        read, pin = self._pins.get(reference, (0.0, None))
        now = time.monotonic()
        if pin is None or now - read > self._max_age_s:
            pin = self._resolve(reference)
            self._pins[reference] = now, pin
        return pin

    def _resolve(self, reference: str) -> Pin:
        name, version = parse_reference(reference)
        digest = self._digest(name, version)
        if version.isdecimal():
            number = int(version)
        else:
            aliases = fetch_aliases(self._store, name)
            if version not in aliases.targets:
                raise ModelNotFoundError(f"model {name} has no alias {version!r}")
            number = aliases.targets[version]
            digest = digest or aliases.pins[number][0]
        loaded = self._loaded
        if not digest and loaded is not None and (loaded.pin.name, loaded.pin.version) == (name, number):
            return loaded.pin  # versions are immutable
        if not digest:
            with self._missing(name, number), self._refusals(name, number):
                digest = fetch_manifest(self._store, name, number).sha256
        return Pin(name, number, digest)

    def _digest(self, name: str, version: str) -> str:
        """What the manifest of a version or alias must hash to; "" where nothing is pinned.

        Raises:
            ModelNotFoundError: another version is pinned, and this function scores with that alone.
        """
        if self._digests and (name, version) not in self._digests:
            pinned = ", ".join(f"{name}:{version}" for name, version in self._digests)
            raise ModelNotFoundError(f"this function scores with {pinned} alone (MODEL_MANIFEST_SHA256 pins it)")
        return self._digests.get((name, version), "")

    def load(self, pin: Pin) -> LoadedModel:
        """Fetch and verify the pinned version.

        Raises:
            ModelNotFoundError: it is not there.
            ArtifactError: it is not what was pinned.
            StoreError: the store cannot be read.
        """
        if self._digests and self._digest(pin.name, str(pin.version)) != pin.digest:
            raise ArtifactError(f"{pin.name} version {pin.version} has another digest than MODEL_MANIFEST_SHA256 pins")
        with self._lock:
            if self._loaded is None or self._loaded.pin != pin:
                with self._missing(pin.name, pin.version), self._refusals(pin.name, pin.version):
                    artifact = fetch_artifact(self._store, pin.name, str(pin.version), pin.digest)
                self._loaded = LoadedModel(pin, artifact.manifest, bytes(artifact.model), artifact.assets)
                if self._audited and self._store.trust is not None:
                    audit.loaded(artifact.manifest, self._store.trust)
            return self._loaded

    @contextmanager
    def _missing(self, name: str, version: int) -> Iterator[None]:
        """A version that is not there, in other words than those of TensorFlow Serving's clients."""
        try:
            yield
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"model {name} has no version {version} in {self.url}") from error

    @contextmanager
    def _refusals(self, name: str, version: int) -> Iterator[None]:
        """Record a version that is refused."""
        try:
            yield
        except ArtifactError as error:
            if self._audited:
                audit.refused(name, version, error)
            raise
