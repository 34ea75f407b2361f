"""Publish the golden models into a folder by hand, byte for byte as docs/reference/manifest.md describes a store.

Written without the toolchain's own writer, so that a mistake in it cannot hide from the reader's tests.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from litelambda_serving.litert import CompiledModel

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name: str) -> bytes:
    """The bytes of a golden model."""
    return (GOLDEN / f"{name}.tflite").read_bytes()


def describe(data: bytes) -> dict[str, Any]:
    """The manifest's `signatures` of a flatbuffer, as the runtime reads them."""
    with CompiledModel(data) as model:
        return {
            key: {"inputs": [_tensor(s) for s in sig.inputs], "outputs": [_tensor(s) for s in sig.outputs]}
            for key, sig in model.signatures.items()
        }


def make_manifest(name: str, version: int, data: bytes, **fields: Any) -> dict[str, Any]:
    """A manifest with the fields that a reader needs; `fields` replace or add."""
    return {
        "format_version": 1,
        "model": name,
        "version": version,
        "artifact": "model.tflite",
        "files": {"model.tflite": {"sha256": hashlib.sha256(data).hexdigest(), "size_bytes": len(data)}},
        "default_signature": "predict",
        "signatures": describe(data),
        "batching": {"dynamic": True, "verified_sizes": [1, 2, 3, 8, 32]},
        "labels": None,
        **fields,
    }


def publish(root: Path, name: str, version: int = 1, data: bytes | None = None, **fields: Any) -> str:
    """Lay out one version, point `latest` at it, and return the manifest's digest."""
    data = golden(name) if data is None else data
    folder = root / name / str(version)
    folder.mkdir(parents=True)
    (folder / "model.tflite").write_bytes(data)
    document = json.dumps(make_manifest(name, version, data, **fields)).encode()
    (folder / "manifest.json").write_bytes(document)
    digest = hashlib.sha256(document).hexdigest()
    set_aliases(root, {"latest": version}, name)
    return digest


def set_aliases(root: Path, document: dict[str, Any], name: str = "m") -> None:
    """Replace a model's aliases as the toolchain does: in one step, with a pin for every version that there is."""
    pins = {
        manifest.parent.name: {
            "manifest_sha256": hashlib.sha256(manifest.read_bytes()).hexdigest(),
            "artifact": json.loads(manifest.read_bytes())["artifact"],
        }
        for manifest in (root / name).glob("*/manifest.json")
    }
    path = root / name / "aliases.json"
    temporary = path.with_suffix(".new")
    temporary.write_text(json.dumps({"versions": pins, **document}))
    temporary.replace(path)


def _tensor(spec: Any) -> dict[str, Any]:
    scheme = spec.quantization
    return {
        "name": spec.name,
        "dtype": spec.dtype.name,
        "shape": list(spec.shape),
        "quantization": {"scale": scheme.scale, "zero_point": scheme.zero_point} if scheme else None,
    }
