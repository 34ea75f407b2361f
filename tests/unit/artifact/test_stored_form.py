"""Artifacts stored compressed: chosen by arithmetic, pinned in both forms, unpacked, refused when wrong."""

from __future__ import annotations

import hashlib
import itertools
import json
import lzma
import random
import subprocess
import sys
import threading
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from litelambda.artifact.stored_form import Stored, store_form, stored_size
from litelambda.recipe.sections import Publish
from litelambda_serving import s3_store
from litelambda_serving.artifact import fetch_artifact, unpack
from litelambda_serving.artifact.unpack import Unpacker
from litelambda_serving.errors import ArtifactError, DigestError, LiteRtError, ManifestError
from litelambda_serving.litert import CompiledModel
from litelambda_serving.manifest import FileEntry, Manifest
from litelambda_serving.store import FileStore, open_store
from support.faulty_s3 import faulty_s3
from support.golden_store import golden, make_manifest

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


def test_a_name_need_not_say_that_its_file_is_compressed(tmp_path: Path) -> None:
    """What a file is, the manifest says: a compressed one of the usual name is unpacked once it is here."""
    stored = form("xz")
    usual = Stored("model.tflite", stored.content, "xz", {}, stored.pin)
    artifact = fetch_artifact(open_store(lay_out(tmp_path, usual)), "tiny_int8")
    assert bytes(artifact.model) == golden("tiny_int8")


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


PACKERS = {"zlib": zlib.compress, "xz": lzma.compress}
NOISE = random.Random(0).randbytes(1_200_000)


def entry_of(encoding: str, content: bytes, **pin: Any) -> FileEntry:
    """The pin of a file that unpacks to `content`."""
    unpacked = {"sha256": hashlib.sha256(content).hexdigest(), "size_bytes": len(content), **pin}
    return FileEntry("", 0, encoding, FileEntry(**unpacked))


def unpacked(encoding: str, content: bytes, pieces: list[bytes], **pin: Any) -> bytes:
    """What comes out of a file that arrives in pieces."""
    unpacker = Unpacker("f")
    unpacker.begin(entry_of(encoding, content, **pin))
    for piece in pieces:
        unpacker.update(memoryview(piece))
    return bytes(unpacker.result())


@given(st.sampled_from(["zlib", "xz"]), st.lists(st.integers(0, 400), max_size=5), st.binary(max_size=300))
def test_pieces_of_any_size_unpack_to_the_whole(encoding: str, cuts: list[int], content: bytes) -> None:
    """However a file is cut on its way, empty pieces and bytes behind its end included."""
    packed = PACKERS[encoding](content) + b"behind"
    places = [0, *sorted(cuts), len(packed)]
    pieces = [packed[start:end] for start, end in itertools.pairwise(places)]
    assert unpacked(encoding, content, pieces) == content


@pytest.mark.parametrize("encoding", ["zlib", "xz"])
@pytest.mark.parametrize(
    "content", [b"", bytes(2 << 20), bytes((2 << 20) + 1), NOISE], ids=["0", "2 MiB", "1 more", "noise"]
)
def test_what_comes_out_may_be_far_larger_or_smaller_than_what_goes_in(encoding: str, content: bytes) -> None:
    """One piece of a file can unpack to many, and many pieces to a few."""
    packed = PACKERS[encoding](content)
    assert unpacked(encoding, content, [packed]) == content
    step = max(len(packed) // 7, 1)
    assert unpacked(encoding, content, [packed[at : at + step] for at in range(0, len(packed), step)]) == content


@pytest.mark.parametrize("encoding", ["zlib", "xz"])
def test_a_bomb_is_given_up_at_the_pinned_size(encoding: str) -> None:
    """What is beyond the pinned size is never unpacked: the decompressor sees no piece after the one that went over."""
    bomb = PACKERS[encoding](bytes(5_000_000))
    unpacker = Unpacker("f")
    unpacker.begin(entry_of(encoding, bytes(1000)))
    unpacker.update(bomb)
    failure = unpacker._failure
    unpacker.update(bomb)
    assert isinstance(failure, ArtifactError)
    assert unpacker._failure is failure
    with pytest.raises(ArtifactError, match="does not unpack to the 1000 bytes"):
        unpacker.result()


def test_the_unpacked_form_is_verified_too() -> None:
    """Bytes of the right encoding and size, but another digest, never reach the runtime."""
    with pytest.raises(DigestError, match=r"f unpacks to SHA-256 .*, the manifest pins 0000"):
        unpacked("xz", b"weights", [lzma.compress(b"weights")], sha256="0" * 64)


class _Slow(FileStore):
    """A store whose artifact arrives in two halves; what was unpacked of the first is looked at in between."""

    def __init__(self, root: Path, look: Any) -> None:
        super().__init__(root.as_uri(), str(root))
        self._look = look
        self.arrived = threading.Event()

    def fetch_digested(self, key: str, max_bytes: int, sink: Any = None) -> tuple[Any, str]:
        """Two halves."""
        data, digest = super().fetch_digested(key, max_bytes)
        whole = bytes(data)
        sink(whole[: len(whole) // 2])
        self._look()
        sink(whole[len(whole) // 2 :])
        self.arrived.set()
        return data, digest


def test_an_artifact_is_unpacked_while_it_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When half of the file is there, its part of the model lies in memory already."""
    rooms: list[bytearray] = []
    filled: list[bytes] = []

    def room(_name: str, size: int, *, in_memory: bool) -> bytearray:
        assert not in_memory
        rooms.append(bytearray(size))
        return rooms[0]

    monkeypatch.setattr(unpack, "_room", room)
    lay_out(tmp_path, form("zlib"))
    store = _Slow(tmp_path, lambda: filled.append(bytes(rooms[0])))
    assert bytes(fetch_artifact(store, "tiny_int8").model) == golden("tiny_int8")
    (half,) = filled
    assert half[:200] == golden("tiny_int8")[:200]
    assert half[-200:] == bytes(200)


def test_an_artifact_that_nobody_wants_after_all_goes_by(tmp_path: Path) -> None:
    """A fetch that was begun for a manifest that is then refused ends by itself; nothing of it is unpacked."""
    lay_out(tmp_path, form("zlib"))
    (tmp_path / "tiny_int8/1/manifest.json").write_text("{}")
    store = _Slow(tmp_path, lambda: None)
    with pytest.raises(DigestError, match="pinned was"):
        fetch_artifact(store, "tiny_int8")
    assert store.arrived.wait(5)


@pytest.mark.parametrize("encoding", ["zlib", "xz"])
@pytest.mark.parametrize("version", ["latest", "1"])
def test_s3_unpacks_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, encoding: str, version: str) -> None:
    """Through S3, in one range or in several side by side; each object is asked for as often as it has ranges."""
    for name, value in (("AWS_ACCESS_KEY_ID", "k"), ("AWS_SECRET_ACCESS_KEY", "s"), ("AWS_REGION", "eu-west-1")):
        monkeypatch.setenv(name, value)
    stored = form(encoding)
    lay_out(tmp_path, stored)
    objects = {str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    for part_bytes in (s3_store._PART_BYTES, len(stored.content) // 3):
        monkeypatch.setattr(s3_store, "_PART_BYTES", part_bytes)
        with faulty_s3(objects, lambda _: None) as (endpoint, asked):
            monkeypatch.setenv("AWS_ENDPOINT_URL_S3", endpoint)
            assert bytes(fetch_artifact(open_store("s3://bucket"), "tiny_int8", version).model) == golden("tiny_int8")
        assert asked.count(f"tiny_int8/1/{stored.name}") == -(-len(stored.content) // part_bytes)


def test_an_unknown_encoding_asks_for_a_newer_reader(tmp_path: Path) -> None:
    """Encodings that come later are refused by name."""
    files = {"model.tflite": {"sha256": "0" * 64, "size_bytes": 1, "encoding": "zstd", "unpacked": {}}}
    manifest = make_manifest("tiny_int8", 1, golden("tiny_int8"), files=files)
    with pytest.raises(
        ManifestError, match="encoding 'zstd' is not one of zlib, xz, aes-256-gcm: deploy a newer litelambda"
    ):
        Manifest.from_json(json.dumps(manifest).encode())


@pytest.mark.parametrize("encoding", ["zlib", "xz"])
def test_a_reader_that_knows_no_encodings_fails_clearly(encoding: str) -> None:
    """Handed to the runtime as it is stored, a compressed artifact is an error and never a crash."""
    with pytest.raises(LiteRtError):
        CompiledModel(form(encoding).content)


def test_an_uncompressed_artifact_costs_no_decompressor(tmp_path: Path) -> None:
    """Nothing of unpacking is imported when there is nothing to unpack, and only the one C module when there is."""
    script = (
        "import sys; from litelambda_serving.artifact import fetch_artifact\n"
        "from litelambda_serving.store import open_store\n"
        "fetch_artifact(open_store(sys.argv[1]), 'tiny_int8')\n"
        "later = ('litelambda_serving.artifact.unpack', 'zlib', '_lzma', 'lzma')\n"
        "print([name for name in later if name in sys.modules])"
    )
    functions = str(Path(__file__).parents[3] / "functions")

    def loaded(url: str) -> str:
        command = [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, {functions!r})\n{script}", url]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    assert loaded(lay_out(tmp_path / "plain", form("none"))) == "[]"
    assert loaded(lay_out(tmp_path / "packed", form("xz"))) == "['litelambda_serving.artifact.unpack', '_lzma']"
