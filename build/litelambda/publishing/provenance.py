"""Where a version comes from, in the forms that others' tools read, made of its manifest.

    bom.cdx.json             a bill of materials: CycloneDX 1.6, with the model's card
    provenance.intoto.json   an in-toto Statement with SLSA's provenance (v1): what was built of what, by what

Both are files of the version: the manifest pins them, and its signature signs them. They cannot name the manifest's
digest for that reason; what they are about is the version's other files.
"""

from __future__ import annotations

import base64
import json
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from litelambda.publishing.manifest_format import ManifestDocument

__all__ = ["BOM_NAME", "STATEMENT_NAME", "make_provenance"]

BOM_NAME = "bom.cdx.json"
STATEMENT_NAME = "provenance.intoto.json"

_BUILD_TYPE = "urn:litelambda:build:1"
_BUILDER = "urn:litelambda:toolchain"
_NAMESPACE = uuid.UUID("6f0e2a2c-3c1f-4b4e-9d43-5d8f2f6d3c55")  # of serial numbers, which follow from what is built

Document = dict[str, Any]


def make_provenance(manifest: ManifestDocument) -> dict[str, bytes]:
    """Both files by name.

    Args:
        manifest: what it will say, but for these two.
    """
    return {
        BOM_NAME: json.dumps(_bom(manifest), indent=1, allow_nan=False).encode(),
        STATEMENT_NAME: json.dumps(_statement(manifest), indent=1, allow_nan=False).encode(),
    }


def _bom(manifest: ManifestDocument) -> Document:
    name, version = manifest["model"], str(manifest["version"])
    artifact = manifest["files"][manifest["artifact"]]["sha256"]
    data = [_data_component(path, digest) for path, digest in _sources(manifest)]
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, f'{name}/{version}/{artifact}')}",
        "version": 1,
        "metadata": {
            "timestamp": manifest["created"],
            "tools": {"components": [_tool(*tool) for tool in manifest["tools"].items()]},
            "component": {
                "type": "machine-learning-model",
                "bom-ref": f"model:{name}:{version}",
                "name": name,
                "version": version,
                "hashes": [{"alg": "SHA-256", "content": artifact}],
                "modelCard": _model_card(manifest, [each["bom-ref"] for each in data]),
                "properties": [
                    {"name": "litelambda:quantization", "value": str(manifest["quantization"].get("scheme"))},
                    {"name": "litelambda:artifact", "value": manifest["artifact"]},
                ],
            },
        },
        "components": [*data, *(_file_component(*file) for file in manifest["files"].items())],
        "dependencies": [{"ref": f"model:{name}:{version}", "dependsOn": [each["bom-ref"] for each in data]}],
    }


def _model_card(manifest: ManifestDocument, datasets: list[str]) -> Document:
    signature = manifest["signatures"][manifest["default_signature"]]
    parameters: Document = {
        "datasets": [{"ref": ref} for ref in datasets],
        **{side: [{"format": _format(tensor)} for tensor in signature[side]] for side in ("inputs", "outputs")},
    }
    if "imported" not in manifest["recipe"]:
        parameters["approach"] = {"type": "supervised"}
    if task := manifest.get("task"):
        parameters["task"] = task
    metrics = [
        {"type": kind, "value": repr(value), "slice": f"test rows, {model} model"}
        for model in ("float", "quantized")
        for kind, value in (manifest["metrics"].get(model) or {}).items()
        if isinstance(value, int | float)
    ]
    return {"modelParameters": parameters, "quantitativeAnalysis": {"performanceMetrics": metrics}}


def _format(tensor: Mapping[str, Any]) -> str:
    return f"{tensor['name']}: {tensor['dtype']}{list(tensor['shape'])}"


def _sources(manifest: ManifestDocument) -> Iterator[tuple[str, str]]:
    """What it was built of: names, and SHA-256 in hex."""
    for pin in manifest.get("datasets", ()):
        yield pin["file"], pin["sha256"]
    imported = manifest["recipe"].get("imported", {})
    if "sha256" in imported:
        yield imported["file"], imported["sha256"]


def _data_component(path: str, digest: str) -> Document:
    return {
        "type": "data",
        "bom-ref": f"data:{digest}",
        "name": path,
        "hashes": [{"alg": "SHA-256", "content": digest}],
        "data": [{"type": "dataset", "name": path}],
    }


def _file_component(name: str, pin: Mapping[str, Any]) -> Document:
    digest = pin["sha256"]
    hashes = [{"alg": "SHA-256", "content": digest}]
    return {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": hashes}


def _tool(name: str, version: str) -> Document:
    if name == "python":
        return {"type": "platform", "name": name, "version": version}
    package = name.replace("_", "-")
    return {"type": "library", "name": package, "version": version, "purl": _purl(package, version)}


def _purl(package: str, version: str) -> str:
    return f"pkg:pypi/{package}@{version.replace('+', '%2B')}"


def _statement(manifest: ManifestDocument) -> Document:
    tools = {name.replace("_", "-"): version for name, version in manifest["tools"].items() if name != "python"}
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": name, "digest": {"sha256": pin["sha256"]}} for name, pin in manifest["files"].items()],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": _BUILD_TYPE,
                "externalParameters": {"model": manifest["model"], "recipe": manifest["recipe"]},
                "internalParameters": {"quantization": manifest["quantization"]},
                "resolvedDependencies": [
                    *({"name": name, "digest": {"sha256": digest}} for name, digest in _sources(manifest)),
                    *({"name": name, "uri": _purl(name, version)} for name, version in tools.items()),
                ],
            },
            "runDetails": {
                "builder": {"id": _BUILDER, "version": dict(manifest["tools"])},
                "metadata": {
                    "invocationId": f"{manifest['model']}/{manifest['version']}",
                    "finishedOn": manifest["created"],
                },
                "byproducts": [
                    {
                        "name": "metrics",
                        "mediaType": "application/json",
                        "content": base64.b64encode(json.dumps(manifest["metrics"]).encode()).decode(),
                    }
                ],
            },
        },
    }
