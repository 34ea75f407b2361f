"""The publishing side of an artifact store: its layout and its promises, on a folder or on S3.

    <model>/<version>/manifest.json    written after the files it lists: a version without it does not exist
    <model>/<version>/manifest.json.sig  its signature, where it is signed; written before it
    <model>/<version>/model.tflite     … and what else the manifest lists
    <model>/aliases.json               replaced whole, last
    audit/…                            who did what: see `litelambda.store.audit_trail`

Versions are positive numbers and immutable. The next one is the highest that was ever begun plus one: files that a
killed publisher left use its number up, and readers do not see them.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from litelambda.common.errors import PublishError, UsageError
from litelambda.common.interrupts import commit
from litelambda.common.paths import store_url
from litelambda.store.aliases_document import (
    Document,
    check_alias,
    check_shares,
    point,
    read_document,
    set_pins,
    target_of,
)
from litelambda.store.audit_trail import AUDIT_FOLDER, AuditTrail
from litelambda.store.reading import open_reader
from litelambda_serving.aliases import ALIASES_NAME, RESERVED_NAMES
from litelambda_serving.artifact import MANIFEST_NAME, fetch_artifact
from litelambda_serving.errors import ModelNotFoundError, ObjectNotFoundError, StoreConflictError
from litelambda_serving.manifest import is_valid_name
from litelambda_serving.objects import objects_for
from litelambda_serving.scoring.errors import JobError
from litelambda_serving.scoring.models import parse_reference
from litelambda_serving.store import split_store_url
from litelambda_serving.trust import SIGNATURE_NAME

_ATTEMPTS = 20
_PAUSE_S = 0.05


@dataclass(frozen=True)
class FetchedModel:
    """A version of a model, its bytes checked against what its manifest pins.

    Attributes:
        model: its name.
        version: its number.
        manifest: the fields of its manifest.
        artifact: the flatbuffer.
    """

    model: str
    version: int
    manifest: Mapping[str, Any]
    artifact: bytes


class Store:
    """Models, their versions and their aliases, in a folder or on S3.

    Attributes:
        url: the store's URL.
        trail: records what is done to it.

    Example:
        >>> import tempfile
        >>> store = Store(tempfile.mkdtemp())
        >>> store.publish("digits", 1, {"model.tflite": b"..."}, b'{"artifact": "model.tflite"}')
        >>> store.set_alias("digits", "stable", 1)
        >>> store.list_models(), store.list_versions("digits"), store.read_aliases("digits")
        (['digits'], [1], {'stable': 1})
        >>> store.resolve("digits@stable")
        ('digits', 1)
    """

    def __init__(self, store: str | Path) -> None:
        """Open a store; no connection is made yet.

        Args:
            store: a folder, `file:///…`, `s3://bucket/prefix`, `gs://…` or `az://…`.

        Raises:
            UsageError, SettingsError: it is none of these.
        """
        self.url = store_url(store)
        scheme, bucket, path = split_store_url(self.url)
        self._root = f"{scheme}://{bucket}/{path.strip('/')}".rstrip("/")
        self._objects = objects_for(f"{self._root}/")
        self.trail = AuditTrail(self._root, self._objects)

    def list_models(self) -> list[str]:
        """Names of all models that have a published version."""
        names = filter(is_valid_name, self._objects.folders(f"{self._root}/"))
        return [name for name in names if name != AUDIT_FOLDER and self.list_versions(name)]

    def list_versions(self, model: str) -> list[int]:
        """Published versions of a model, ascending."""
        folder = self._url(f"{model}/")
        pattern = re.compile(re.escape(folder) + r"([1-9]\d*)/" + re.escape(MANIFEST_NAME))
        found = (pattern.fullmatch(info.url) for info in self._objects.list(folder))
        return sorted(int(match[1]) for match in found if match)

    def next_version(self, model: str) -> int:
        """The number that the next publisher of a model should take."""
        begun = (int(name) for name in self._objects.folders(self._url(f"{model}/")) if name.isdecimal())
        return max(begun, default=0) + 1

    def publish(self, model: str, version: int, files: Mapping[str, bytes | Path], manifest: bytes) -> None:
        """Write a version: its files, then the manifest that makes it readable; Ctrl-C has no effect from then on.

        Raises:
            PublishError: the number is taken; nothing of the other publisher's is touched. Or the name is the store's.
            StoreError: the store refused.
        """
        if model == AUDIT_FOLDER:
            raise PublishError(f"a model cannot be named {model!r}: that folder is the store's audit trail")
        digest, signature = hashlib.sha256(manifest).hexdigest(), "valid" if SIGNATURE_NAME in files else "unsigned"
        with self.trail.recording("publish", model=model, version=version, manifest_sha256=digest, signature=signature):
            self._write_version(f"{model}/{version}", files, manifest)

    def _write_version(self, folder: str, files: Mapping[str, bytes | Path], manifest: bytes) -> None:
        try:
            for name, content in files.items():
                self._put(f"{folder}/{name}", content, "")
            commit()
            self._put(f"{folder}/{MANIFEST_NAME}", manifest, "")
        except StoreConflictError as error:
            model, _, version = folder.partition("/")
            raise PublishError(
                f"version {version} of {model} was taken by another publisher ({error}); "
                "this one cannot be read; publish again to get the next number"
            ) from error

    def read_manifest(self, model: str, version: int) -> bytes:
        """The manifest of a version, byte by byte.

        Raises:
            PublishError: the version does not exist.
        """
        try:
            return self._get(f"{model}/{version}/{MANIFEST_NAME}")[0]
        except ObjectNotFoundError:
            raise PublishError(f"{model} has no version {version} in {self.url}; {self.describe(model)}") from None

    def describe(self, model: str) -> str:
        """The versions and aliases of a model, or the models of the store if it has none of that name, for messages."""
        versions = self.list_versions(model) if is_valid_name(model) else []
        if not versions:
            return f"the store has the models {', '.join(self.list_models()) or '(none)'}"
        aliases = ", ".join(f"{alias} ({target})" for alias, target in sorted(self.read_aliases(model).items()))
        return f"it has {', '.join(map(str, versions))}, aliases: {aliases or 'none'}"

    def resolve(self, reference: str) -> tuple[str, int]:
        """The model and the version that `NAME`, `NAME@ALIAS` or `NAME:VERSION` means now.

        Raises:
            UsageError: the reference cannot be parsed, or the model has no such alias.
        """
        try:
            name, version = parse_reference(reference)
        except JobError as error:
            raise UsageError(str(error)) from error
        if version.isdecimal():
            return name, int(version)
        aliases = self.read_aliases(name)
        if version not in aliases:
            raise UsageError(f"{name!r} has no alias {version!r} in {self.url}; {self.describe(name)}")
        return name, aliases[version]

    def fetch(self, reference: str) -> FetchedModel:
        """Fetch what `NAME`, `NAME@ALIAS` or `NAME:VERSION` means now, as the service does.

        Raises:
            UsageError: see `resolve`.
            ModelNotFoundError: the store has no such version.
            DigestError, ArtifactError: it is not what was published.
        """
        name, version = self.resolve(reference)
        try:
            fetched = fetch_artifact(open_reader(self.url), name, str(version))
        except ModelNotFoundError as error:
            raise ModelNotFoundError(f"{error}; {self.describe(name)}") from error
        return FetchedModel(name, version, fetched.manifest.fields, bytes(fetched.model))

    def read_file(self, model: str, version: int, name: str) -> bytes:
        """A file of a version.

        Raises:
            ObjectNotFoundError: it has no file of that name.
        """
        return self._get(f"{model}/{version}/{name}")[0]

    def read_aliases(self, model: str) -> dict[str, int]:
        """The aliases of a model; empty where it has none."""
        document, _ = self._read_aliases(model)
        return {name: target for name, target in document.items() if name not in RESERVED_NAMES}

    def read_traffic(self, model: str) -> dict[str, Document]:
        """A model's `{"canary": {alias: {version: percent}}, "shadow": {alias: version}}`."""
        document, _ = self._read_aliases(model)
        return {name: document.get(name, {}) for name in ("canary", "shadow")}

    def set_alias(
        self,
        model: str,
        alias: str,
        version: int,
        canary: Mapping[int, float] | None = None,
        shadow: int | None = None,
    ) -> None:
        """Point an alias at a published version, forward or back.

        Args:
            model: the model.
            alias: its alias.
            version: the version that answers the alias' requests.
            canary: percentages of those requests that other versions answer instead; replaces those set before.
            shadow: a version that runs on the same requests, to be compared; replaces the one set before.

        Raises:
            PublishError: the version does not exist, a name or percentage is not allowed, or other writers always
                came first.
        """
        shares = check_shares(alias, version, canary, shadow)

        def change(document: Document) -> bool:
            point(document, alias, version, shares, shadow)
            return True

        self._change_aliases(model, alias, [version, *shares, *([shadow] if shadow else [])], change)

    def advance_alias(self, model: str, alias: str, version: int) -> None:
        """Point an alias at a version unless it points at a later one: a slow publisher does not move it back.

        Raises:
            PublishError: as `set_alias`.
        """

        def change(document: Document) -> bool:
            current = document.get(alias)
            document[alias] = version
            return current is None or current < version

        self._change_aliases(model, alias, [version], change)

    def _change_aliases(
        self, model: str, alias: str, versions: Sequence[int], change: Callable[[Document], bool]
    ) -> None:
        """Let `change` edit the document, with pins for `versions`, until no other writer interferes.

        It returns whether there is anything to write.
        """
        check_alias(alias)
        pins = {str(version): self._pin(model, version) for version in versions}
        document, _ = self._read_aliases(model)
        before = target_of(document, alias)
        if not change(document):
            return
        moved, digest = (before, target_of(document, alias)), pins[str(versions[0])]["manifest_sha256"]
        fields = {"model": model, "version": versions[0], "alias": alias, "manifest_sha256": digest}
        with self.trail.recording("alias", **fields, moved=moved) as more:
            more["moved"] = self._replace_aliases(model, alias, pins, change)

    def _replace_aliases(
        self, model: str, alias: str, pins: Mapping[str, Mapping[str, str]], change: Callable[[Document], bool]
    ) -> tuple[Any, Any]:
        """What `alias` meant before, and means now."""
        for _ in range(_ATTEMPTS):
            document, tag = self._read_aliases(model)
            before = target_of(document, alias)
            if not change(document):
                return before, before
            set_pins(document, pins)
            try:
                content = json.dumps(document, separators=(",", ":")).encode()
                self._put(f"{model}/{ALIASES_NAME}", content, tag)
            except StoreConflictError:
                time.sleep(random.uniform(0, _PAUSE_S))  # noqa: S311 - only spreads the writers
            else:
                return before, target_of(document, alias)
        raise PublishError(
            f"{model}/{ALIASES_NAME} in {self.url} was changed by others {_ATTEMPTS} times: {alias} was not moved; "
            "try again"
        )

    def _pin(self, model: str, version: int) -> dict[str, str]:
        manifest = self.read_manifest(model, version)
        return {"manifest_sha256": hashlib.sha256(manifest).hexdigest(), "artifact": json.loads(manifest)["artifact"]}

    def _url(self, key: str) -> str:
        return f"{self._root}/{key}"

    def _get(self, key: str) -> tuple[bytes, str]:
        """An object and its tag.

        Raises:
            ObjectNotFoundError: there is none at that key.
        """
        found = self._objects.get(self._url(key))
        if found is None:
            raise ObjectNotFoundError(f"{self._url(key)} does not exist")
        return found

    def _put(self, key: str, content: bytes | Path, tag: str) -> None:
        """Write an object over the one of this tag, or only if there is none where that is "".

        Raises:
            StoreConflictError: another writer was first.
        """
        if not self._objects.put(self._url(key), content, tag=tag):
            raise StoreConflictError(f"{self._url(key)} was {'changed' if tag else 'written'} by another writer")

    def _read_aliases(self, model: str) -> tuple[Document, str]:
        try:
            content, tag = self._get(f"{model}/{ALIASES_NAME}")
        except ObjectNotFoundError:
            return {}, ""
        return read_document(content, f"{self.url}/{model}/{ALIASES_NAME}"), tag
