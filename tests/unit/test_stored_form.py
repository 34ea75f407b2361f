"""Artifacts stored compressed: chosen by arithmetic, pinned in both forms, unpacked, refused when wrong."""

from __future__ import annotations

import hashlib
import json
import lzma
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import pytest

from golden_store import golden, make_manifest
from litelambda.sections import Publish
from litelambda.stages.storing import Stored, store_form, stored_size
from serving.artifact import fetch_artifact
from serving.errors import ArtifactError, DigestError, LiteRtError, ManifestError
from serving.litert import CompiledModel
from serving.manifest import Manifest
from serving.store import open_store

NAMES = {"zlib": "model.tflite.z", "xz": "model.tflite.xz"}


def lay_out(root: Path, stored: Stored, **pin: Any) -> str:
    """Publish a golden model in a stored form by hand; return the store's URL."""
    folder = root / "tiny_int8" / "1"
    folder.mkdir(parents=True)
    (folder / stored.name).write_bytes(stored.content)
    files = {
        stored.name: {
            "sha256": hashlib.sha256(stored.content).hexdigest(),
            "size_bytes": len(stored.content),
            **stored.pin,
            **pin,
        }
    }
    manifest = make_manifest("tiny_int8", 1, golden("tiny_int8"), artifact=stored.name, files=files)
    document = json.dumps(manifest).encode()
    (folder / "manifest.json").write_bytes(document)
    pins = {"1": {"manifest_sha256": hashlib.sha256(document).hexdigest(), "artifact": stored.name}}
    (root / "tiny_int8" / "aliases.json").write_text(json.dumps({"latest": 1, "versions": pins}))
    return root.as_uri()


def form(encoding: str, data: bytes | None = None) -> Stored:
    settings = Publish.model_validate({"name": "tiny_int8", "stored": encoding})
    return store_form(golden("tiny_int8") if data is None else data, settings)


@pytest.mark.parametrize("encoding", ["zlib", "xz"])
@pytest.mark.parametrize("version", ["latest", "1"])
def test_the_reader_unpacks(tmp_path: Path, encoding: str, version: str) -> None:
    """A compressed artifact comes out as the flatbuffer it was, by alias and by number."""
    stored = form(encoding)
    assert stored.name == NAMES[encoding]
    assert len(stored.content) < len(golden("tiny_int8"))
    artifact = fetch_artifact(open_store(lay_out(tmp_path, stored)), "tiny_int8", version)
    assert bytes(artifact.model) == golden("tiny_int8")
    entry = artifact.manifest.files[stored.name]
    assert entry.unpacked is not None
    assert entry.unpacked.sha256 == hashlib.sha256(golden("tiny_int8")).hexdigest()


def test_the_quickest_form_depends_on_the_bandwidth() -> None:
    """A slow link makes compression pay, a fast one does not; what cannot be compressed stays as it is."""
    sparse = bytes(3_000_000) + hashlib.sha256(b"noise").digest() * 1000
    slow = Publish(name="a", bandwidth_mb_per_s=1.0)
    fast = Publish(name="a", bandwidth_mb_per_s=100_000.0)
    assert store_form(sparse, slow).encoding == "xz"
    assert store_form(sparse, Publish(name="a", bandwidth_mb_per_s=80.0)).encoding in ("zlib", "xz")
    assert store_form(sparse, fast).encoding == "none"
    stored = store_form(sparse, fast)
    assert (stored.name, stored.content, stored.pin) == ("model.tflite", sparse, {})
    assert set(stored.ready_ms) == {"none", "zlib", "xz"}
    assert stored_size(sparse) == len(store_form(sparse, slow).content)


@pytest.mark.parametrize(
    ("encoding", "content"),
    [
        ("zlib", zlib.compress(bytes(10_000_000))),
        ("xz", lzma.compress(bytes(10_000_000))),
        ("zlib", b"no stream at all"),
        ("xz", b"no stream at all"),
        ("zlib", zlib.compress(b"short")),
        ("xz", lzma.compress(bytes(4000))[:-20]),
    ],
    ids=["zlib bomb", "xz bomb", "not zlib", "not xz", "zlib too short", "xz cut"],
)
def test_what_does_not_unpack_as_pinned_is_refused(tmp_path: Path, encoding: str, content: bytes) -> None:
    """Bombs, other bytes and cut streams end in a clear error, at the memory that the manifest allows."""
    stored = Stored(NAMES[encoding], content, encoding, {}, form(encoding).pin)
    with pytest.raises(ArtifactError, match=r"model\.tflite\.x?z (does not unpack to the|is not the)"):
        fetch_artifact(open_store(lay_out(tmp_path, stored)), "tiny_int8")


def test_the_stored_bytes_are_verified_before_they_are_unpacked(tmp_path: Path) -> None:
    """A changed byte of the compressed file is a digest error, not a decompressor's."""
    stored = form("xz")
    url = lay_out(tmp_path, stored)
    path = tmp_path / "tiny_int8" / "1" / stored.name
    path.write_bytes(stored.content[:-1] + b"?")
    with pytest.raises(DigestError, match="has SHA-256"):
        fetch_artifact(open_store(url), "tiny_int8")


def test_an_unknown_encoding_asks_for_a_newer_reader(tmp_path: Path) -> None:
    """Encodings that come later are refused by name."""
    files = {"model.tflite": {"sha256": "0" * 64, "size_bytes": 1, "encoding": "zstd", "unpacked": {}}}
    manifest = make_manifest("tiny_int8", 1, golden("tiny_int8"), files=files)
    with pytest.raises(ManifestError, match="encoding 'zstd' is none of zlib, xz: deploy a newer litelambda"):
        Manifest.from_json(json.dumps(manifest).encode())


@pytest.mark.parametrize("encoding", ["zlib", "xz"])
def test_a_reader_that_knows_no_encodings_fails_clearly(encoding: str) -> None:
    """Handed to the runtime as it is stored, a compressed artifact is an error and never a crash."""
    with pytest.raises(LiteRtError):
        CompiledModel(form(encoding).content)


def test_an_uncompressed_artifact_costs_no_decompressor(tmp_path: Path) -> None:
    """Nothing of unpacking is imported when there is nothing to unpack, and only the one C module when there is."""
    script = (
        "import sys; from serving.artifact import fetch_artifact; from serving.store import open_store\n"
        "fetch_artifact(open_store(sys.argv[1]), 'tiny_int8')\n"
        "print([name for name in ('serving.unpack', 'zlib', '_lzma', 'lzma') if name in sys.modules])"
    )
    functions = str(Path(__file__).parents[2] / "functions")

    def loaded(url: str) -> str:
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {functions!r})\n{script}", url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert loaded(lay_out(tmp_path / "plain", form("none"))) == "[]"
    assert loaded(lay_out(tmp_path / "packed", form("xz"))) == "['serving.unpack', '_lzma']"
