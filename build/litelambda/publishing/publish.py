"""Publish: model files, report and manifest into the store, read back as the server will, then the aliases."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

from litelambda import __version__
from litelambda.artifact.flatbuffer import FlatbufferSignature
from litelambda.artifact.stored_form import Stored
from litelambda.common.errors import VerificationError
from litelambda.keras_tools.backend import backend, load_keras
from litelambda.publishing.encryption import SUFFIX, Encrypted, Encryption
from litelambda.publishing.manifest_format import ManifestDocument
from litelambda.publishing.provenance import make_provenance
from litelambda.store.artifact_store import Store
from litelambda.store.model_signing import make_bundle
from litelambda.store.reading import open_reader
from litelambda.store.signing import Signer
from litelambda_serving.artifact import ARTIFACT_NAME, fetch_artifact
from litelambda_serving.errors import ServingError
from litelambda_serving.manifest import ENCRYPTED
from litelambda_serving.trust import BUNDLE_NAME, SIGNATURE_NAME, Trust

REPORT_NAME = "report.json"
_REPORTS = "report."  # they say what the manifest says, and `litelambda models --report` opens them
_TOOLS = ("keras", "tensorflow", "ai-edge-litert", "ai-edge-quantizer", "numpy")


@dataclass(frozen=True)
class Description:
    """The manifest's fields, besides names, numbers and digests.

    Attributes:
        signature: of the artifact.
        batching: what was proven of running several rows at once.
        quantization: scheme, io, which operators stayed float, and why.
        labels: class names by number, or None.
        preprocessing: by input, how raw values become the model's, with their `kind`.
        assets: contents of the files that it names.
        metrics: figures of both models.
        size_bytes: of the float flatbuffer and of the artifact.
        recipe: that it was built from.
        warm_up: values for the first run, where zeros do not work.
        task: "classification", "multi_label", "regression" or "recommendation"; "" where it is not known.
        vocabularies: by output whose numbers stand for names, the file of `assets` that has these.
        explain: what explanations need to know of the model.
        datasets: `file`, `sha256` and `size_bytes` of what it was built from.
        drift: what drift is measured from.
    """

    signature: FlatbufferSignature
    batching: Mapping[str, Any]
    quantization: Mapping[str, Any]
    labels: list[str] | None
    preprocessing: Mapping[str, Any]
    metrics: Mapping[str, Any]
    size_bytes: Mapping[str, int]
    recipe: Mapping[str, Any]
    warm_up: Mapping[str, Any] = field(default_factory=dict)
    assets: Mapping[str, bytes] = field(default_factory=dict)
    task: str = ""
    vocabularies: Mapping[str, str] = field(default_factory=dict)
    explain: Mapping[str, Any] = field(default_factory=dict)
    datasets: Sequence[Mapping[str, Any]] = ()
    drift: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Published:
    """A version that can be read.

    Attributes:
        model: its name.
        version: its number.
        url: where it lies.
        digest: SHA-256 of its manifest, which pins all the rest.
        aliases: the aliases that were moved to it.
    """

    model: str
    version: int
    url: str
    digest: str
    aliases: list[str]


def publish(  # noqa: PLR0913 - the last three are named by the caller
    store: Store,
    name: str,
    aliases: list[str],
    files: Mapping[str, bytes],
    description: Description,
    stored: Stored | None = None,
    *,
    signer: Signer | None = None,
    encryption: Encryption | None = None,
    version: int = 0,
) -> Published:
    """Publish a version and move aliases to it.

    Args:
        store: where to.
        name: the model's name.
        aliases: moved once the version has been read back; an alias at a later version stays there.
        files: contents by name, the artifact ("model.tflite") first.
        description: the rest of the manifest.
        stored: the form in which the artifact is stored instead of as it is.
        signer: signs the manifest; None leaves it unsigned.
        encryption: encrypts all files but the reports; None leaves them as they are.
        version: the number that the reports say, from `Store.next_version`; 0 takes the next one.

    Raises:
        PublishError: another publisher took the number, or an alias cannot be moved.
        VerificationError: what the store gives back is not what was published; no alias was moved.
        StoreError: the store refused.
    """
    version = version or store.next_version(name)
    artifact = files[ARTIFACT_NAME]
    files = {**files, **description.assets}
    if stored is not None:
        files = {stored.name: stored.content, **{file: files[file] for file in files if file != ARTIFACT_NAME}}
    encrypted = None
    if encryption is not None:
        of_artifact = stored.name if stored else ARTIFACT_NAME
        names = {file: file + SUFFIX if file == of_artifact else file for file in files}
        secret = {names[file]: content for file, content in files.items() if not file.startswith(_REPORTS)}
        encrypted = encryption.encrypt(name, version, secret)
    document = make_manifest(name, version, files, description, stored, encrypted)
    if encrypted is not None:
        files = {names[file]: encrypted.files.get(names[file], content) for file, content in files.items()}
    provenance = make_provenance(document)
    document["files"] = {**document["files"], **{file: _pin(content) for file, content in provenance.items()}}
    files = {**files, **provenance}
    # Compact: a cold start parses it.
    manifest = json.dumps(document, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()
    signature = {SIGNATURE_NAME: signer.sign(manifest), BUNDLE_NAME: make_bundle(manifest, signer)} if signer else {}
    store.publish(name, version, {**files, **signature}, manifest)
    digest = hashlib.sha256(manifest).hexdigest()
    _read_back(store, f"{name}/{version}", digest, artifact, files, encrypted.data_key if encrypted else b"")
    for alias in aliases:
        store.advance_alias(name, alias, version)
    return Published(name, version, f"{store.url.rstrip('/')}/{name}/{version}", digest, aliases)


def make_manifest(
    name: str,
    version: int,
    files: Mapping[str, bytes],
    description: Description,
    stored: Stored | None = None,
    encrypted: Encrypted | None = None,
) -> ManifestDocument:
    """The manifest, but for the files that are made of it."""
    artifact = stored.name if stored else ARTIFACT_NAME
    pins: dict[str, dict[str, Any]] = {file: _pin(content) for file, content in files.items()}
    if stored:
        pins[artifact] |= stored.pin
    stored_bytes = len(files[artifact])
    if encrypted:
        pins = _encrypted_pins(pins, artifact, encrypted)
        artifact += SUFFIX
    document: ManifestDocument = {
        "format_version": 2 if description.preprocessing else 1,
        "model": name,
        "version": version,
        "created": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "artifact": artifact,
        "files": pins,
        "default_signature": description.signature.key,
        "signatures": {description.signature.key: description.signature.to_json()},
        "batching": description.batching,
        "quantization": description.quantization,
        "labels": description.labels,
        "preprocessing": description.preprocessing,
        "metrics": description.metrics,
        "size_bytes": {**description.size_bytes, "stored": stored_bytes},
        "recipe": description.recipe,
        "tools": tool_versions(),
    }
    optional: dict[str, Any] = {
        "encryption": encrypted.document if encrypted else {},
        "task": description.task,
        "outputs": {name: {"vocabulary_file": file} for name, file in description.vocabularies.items()},
        "assets": sorted(description.assets),
        "warm_up": dict(description.warm_up),
        "drift": description.drift,
        "explain": description.explain,
        "datasets": list(description.datasets),
    }
    return cast("ManifestDocument", {**document, **{key: value for key, value in optional.items() if value}})


def _encrypted_pins(
    pins: Mapping[str, dict[str, Any]], artifact: str, encrypted: Encrypted
) -> dict[str, dict[str, Any]]:
    """The pins of files of which some are encrypted, the artifact under a name that says so."""
    found = {}
    for file, pin in pins.items():
        name = file + SUFFIX if file == artifact else file
        content = encrypted.files.get(name)
        found[name] = pin if content is None else {**_pin(content), "encoding": ENCRYPTED, "unpacked": pin}
    return found


def _pin(content: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content)}


def tool_versions() -> dict[str, str]:
    """Versions of the tools that make an artifact."""
    used = (*_TOOLS, "jax") if backend() == "jax" else _TOOLS
    tools = {tool.replace("-", "_"): importlib.metadata.version(tool) for tool in used}
    return {"litelambda": __version__, **tools, "python": platform.python_version()}


def save_keras(model: Any) -> dict[str, bytes]:
    """The model as .keras and .h5 files; without .h5 where HDF5 cannot hold a custom layer."""
    load_keras()
    saved = {}
    with tempfile.TemporaryDirectory(prefix="litelambda-") as scratch:
        for name in ("model.keras", "model.h5"):
            path = Path(scratch) / name
            try:
                model.save(path)
            except NotImplementedError:
                continue
            saved[name] = path.read_bytes()
    return saved


def _read_back(
    store: Store, path: str, digest: str, artifact: bytes, files: Mapping[str, bytes], data_key: bytes
) -> None:
    """Fetch what was published through the reader that serves it."""
    name, _, version = path.partition("/")
    reader = open_reader(store.url)
    reader.trust = Trust(data_key=data_key) if data_key else None  # pinned by its digest: it need not be signed yet
    try:
        same = bytes(fetch_artifact(reader, name, version, digest).model) == artifact
        changed = [file for file, content in files.items() if store.read_file(name, int(version), file) != content]
    except ServingError as error:
        raise VerificationError(f"{name} version {version} cannot be read back from {store.url}: {error}") from error
    if not same or changed:
        raise VerificationError(f"{name} version {version} came back from {store.url} changed: {', '.join(changed)}")
