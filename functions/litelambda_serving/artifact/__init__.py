"""Fetching one version of a model: which round trips are made, in what order, and the checks before bytes are served.

The layout of a store, as docs/reference/manifest.md documents it:

    <model>/aliases.json               {"latest": 7, "versions": {"7": {"manifest_sha256": …, "artifact": …}}}
    <model>/<version>/manifest.json    pins every file by size and SHA-256
    <model>/<version>/manifest.json.sig  the manifest's signature, read where the function asks for one
    <model>/<version>/model.sig        OpenSSF model signing's, read instead where there is not the other
    <model>/<version>/model.tflite     or model.tflite.z (zlib), model.tflite.xz: the manifest's `artifact` says which;
                                       .enc at its end where it is encrypted
    <model>/<version>/…                its assets: what preprocessing reads, such as a tokenizer

Round trips are INIT time: one when the version and its manifest's digest are pinned, two through an alias. Assets take
one more, at the same time as what is left of the model.
"""

from __future__ import annotations

from litelambda_serving.aliases import fetch_aliases
from litelambda_serving.background import Background
from litelambda_serving.digest import hexdigest
from litelambda_serving.errors import (
    ArtifactError,
    DigestError,
    ManifestError,
    ModelNotFoundError,
    ObjectNotFoundError,
    TrustError,
)
from litelambda_serving.manifest import ENCRYPTED, Manifest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing_extensions import Buffer

    from litelambda_serving.aliases import Aliases
    from litelambda_serving.artifact.decryption import DataKey
    from litelambda_serving.artifact.unpack import Stage, Unpacker
    from litelambda_serving.manifest import FileEntry
    from litelambda_serving.store import Store

__all__ = ["ARTIFACT_NAME", "MANIFEST_NAME", "Artifact", "fetch_artifact", "fetch_manifest"]

ARTIFACT_NAME = "model.tflite"
MANIFEST_NAME = "manifest.json"

_PACKED_SUFFIXES = (".z", ".xz", ".enc")

_MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
_MAX_ARTIFACT_BYTES = 8 * 1024**3
_MAX_ASSET_BYTES = 256 * 1024**2


class Artifact:
    """A verified model, in memory.

    Attributes:
        manifest: its manifest.
        model: the flatbuffer's bytes.
        aliases: the aliases it was found through, None when it was asked for by number.
        assets: contents of the manifest's `assets`, by name.
    """

    __slots__ = ("aliases", "assets", "manifest", "model")

    def __init__(
        self,
        manifest: Manifest,
        model: Buffer,
        aliases: Aliases | None = None,
        assets: dict[str, bytes] | None = None,
    ) -> None:
        self.manifest = manifest
        self.model = model
        self.aliases = aliases
        self.assets = assets or {}


def fetch_artifact(
    store: Store,
    model: str,
    version: str = "latest",
    manifest_sha256: str = "",
    artifact_name: str = ARTIFACT_NAME,
) -> Artifact:
    """Fetch and verify one version of a model.

    Args:
        store: where from.
        model: a valid model name.
        version: a version number, or an alias.
        manifest_sha256: hex digest that the manifest must have, or "" to trust the store's.
        artifact_name: what to fetch at the same time as the manifest; another name in it costs one more round trip.

    Raises:
        ModelNotFoundError: no such model, version or alias.
        DigestError: the bytes are not those that were pinned.
        ManifestError: the manifest cannot be read, or is another model's.
        ArtifactError: a compressed artifact does not unpack to what was pinned.
        TrustError: the store's `trust` refuses the version.
        StoreError: see `Store.fetch`.
    """
    aliases = None
    if not version.isdecimal():
        aliases = fetch_aliases(store, model)
        if version not in aliases.targets:
            raise ModelNotFoundError(f"Unrecognized servable version label: {version}")
        number = aliases.targets[version]
        manifest_sha256, artifact_name = aliases.pins[number]
        version = str(number)
    folder = f"{model}/{int(version)}"
    fetch = _Fetch(store, f"{folder}/{artifact_name}")
    try:
        manifest = fetch_manifest(store, model, int(version), manifest_sha256)
        data_key = data_key_of(store, manifest) if "encryption" in manifest.fields else None
    except BaseException:
        fetch.abandon()
        raise
    if manifest.artifact != artifact_name:
        fetch.abandon()
        fetch = _Fetch(store, f"{folder}/{manifest.artifact}")
    where = f"{store.url}/{folder}"
    assets = {
        name: Background(store.fetch_digested, f"{folder}/{name}", _MAX_ASSET_BYTES, None) for name in manifest.assets
    }
    buffer = fetch.result(manifest, where, data_key)
    found = {name: _asset(assets[name], name, manifest, where, data_key) for name in assets}
    return Artifact(manifest, buffer, aliases, found)


def _asset(arriving: Background, name: str, manifest: Manifest, where: str, data_key: DataKey | None) -> bytes:
    data, digest = arriving.result()
    entry = manifest.files[name]
    check_pin(data, digest, entry, f"{where}/{name}")
    if entry.encoding:
        from litelambda_serving.artifact.unpack import unpack

        data = unpack(data, entry, f"{where}/{name}", decrypter_of(manifest, name, data_key))
    return bytes(data)


def data_key_of(store: Store, manifest: Manifest) -> DataKey:
    """The key of a version that is encrypted, on its way."""
    from litelambda_serving.artifact.decryption import DataKey

    return DataKey(manifest, store.trust)


def decrypter_of(manifest: Manifest, name: str, data_key: DataKey | None) -> Stage | None:
    """What decrypts a file; None where it is not encrypted."""
    if manifest.files[name].encoding != ENCRYPTED:
        return None
    if data_key is None:
        raise ManifestError(f"manifest file {name} is encrypted, but there is not a field encryption with its key")
    return data_key.decrypter(name)


class _Fetch:
    """An artifact on its way, unpacked while it arrives where its name says that it is compressed or encrypted."""

    def __init__(self, store: Store, key: str) -> None:
        self._unpacker: Unpacker | None = None
        sink = None
        if key.endswith(_PACKED_SUFFIXES):
            from litelambda_serving.artifact.unpack import Unpacker

            self._unpacker = Unpacker(f"{store.url}/{key}")
            sink = self._unpacker.update
        self._data = Background(store.fetch_digested, key, _MAX_ARTIFACT_BYTES, sink)

    def abandon(self) -> None:
        """Do not wait for it: another artifact is wanted, or none."""
        if self._unpacker is not None:
            self._unpacker.abandon()

    def result(self, manifest: Manifest, where: str, data_key: DataKey | None) -> Buffer:
        """The flatbuffer, everything about it checked.

        Raises:
            DigestError, ArtifactError, StoreError: see `fetch_artifact`.
        """
        entry = manifest.files[manifest.artifact]
        try:
            decrypter = decrypter_of(manifest, manifest.artifact, data_key)
        except BaseException:
            self.abandon()
            raise
        if self._unpacker is not None:
            self._unpacker.begin(entry, decrypter)
        arrived: tuple[Buffer, str] = self._data.result()
        data, digest = arrived
        check_pin(data, digest, entry, f"{where}/{manifest.artifact}")
        if not entry.encoding:
            return data
        if self._unpacker is not None:
            return self._unpacker.result()
        from litelambda_serving.artifact.unpack import unpack  # of a name that does not say that it is compressed

        return unpack(data, entry, f"{where}/{manifest.artifact}", decrypter)


def fetch_manifest(store: Store, model: str, version: int, manifest_sha256: str = "") -> Manifest:
    """Fetch the manifest of a version alone.

    Raises:
        ModelNotFoundError, DigestError, ManifestError, TrustError, StoreError: as `fetch_artifact`.
    """
    folder = f"{model}/{version}"
    signature = None
    if store.trust is not None:
        from litelambda_serving.trust import MAX_SIGNATURE_BYTES, SIGNATURE_NAME

        store.trust.check_version(model, version)
        if store.trust.public_keys:
            signature = Background(store.fetch, f"{folder}/{SIGNATURE_NAME}", MAX_SIGNATURE_BYTES)
    try:
        document = bytes(store.fetch(f"{folder}/{MANIFEST_NAME}", _MAX_DOCUMENT_BYTES))
    except ObjectNotFoundError as error:
        raise ModelNotFoundError(f"Servable not found for request: Specific({model}, {version})") from error
    if signature is not None:
        _check_signature(store, document, signature, folder)
    return _checked_manifest(document, model, version, manifest_sha256, f"{store.url}/{folder}")


def _check_signature(store: Store, document: bytes, arriving: Background, folder: str) -> None:
    if store.trust is None:
        return
    from litelambda_serving.trust import BUNDLE_NAME, MAX_BUNDLE_BYTES

    try:
        signature = bytes(arriving.result())
    except ObjectNotFoundError as error:
        try:
            bundle = bytes(store.fetch(f"{folder}/{BUNDLE_NAME}", MAX_BUNDLE_BYTES))
        except ObjectNotFoundError:
            message = f"{store.url}/{folder} is not signed, which MODEL_PUBLIC_KEY asks for: {error}"
            raise TrustError(message, "unsigned") from error
        store.trust.check_bundle(hexdigest(document), bundle, f"{store.url}/{folder}/{BUNDLE_NAME}")
    else:
        store.trust.check_signature(document, signature, f"{store.url}/{folder}/{MANIFEST_NAME}")


def _checked_manifest(document: bytes, model: str, version: int, manifest_sha256: str, where: str) -> Manifest:
    digest = hexdigest(document)
    if manifest_sha256 and digest != manifest_sha256:
        raise DigestError(f"{where}/{MANIFEST_NAME} has SHA-256 {digest}, pinned was {manifest_sha256}")
    manifest = Manifest.from_json(document)
    manifest.sha256 = digest
    if (manifest.model, manifest.version) != (model, version):
        raise ArtifactError(
            f"{where}/{MANIFEST_NAME} is the manifest of {manifest.model} version {manifest.version}, "
            f"not of {model} version {version}"
        )
    return manifest


def check_pin(data: Buffer, digest: str, entry: FileEntry, where: str) -> None:
    """Refuse bytes that are not those that were pinned.

    Raises:
        DigestError: they are not.
    """
    size = len(memoryview(data))
    if size != entry.size_bytes:
        raise DigestError(f"{where} has {size} bytes, the manifest pins {entry.size_bytes}")
    if digest != entry.sha256:
        raise DigestError(f"{where} has SHA-256 {digest}, the manifest pins {entry.sha256}")
